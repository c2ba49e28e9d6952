"""The event names of the OWASP logging vocabulary, with the levels that it gives them.

https://cheatsheetseries.owasp.org/cheatsheets/Logging_Vocabulary_Cheat_Sheet.html
"""

from __future__ import annotations

from typing import Final

from streamlit_extension.logs.levels import LogLevel

_BY_LEVEL: Final = {
    LogLevel.INFO: (
        *("authn_login_success", "authn_login_successafterfail", "authn_password_change", "authn_token_created"),
        *("authn_token_revoked", "session_created", "session_expired", "session_renewed"),
        *("upload_complete", "upload_delete", "upload_stored", "upload_validation"),
    ),
    LogLevel.WARNING: (
        *("authn_login_fail", "authn_login_fail_max", "authn_login_lock", "authn_token_delete"),
        *("authz_admin", "authz_change", "crypt_decrypt_fail", "crypt_encrypt_fail", "excess_rate_limit_exceeded"),
        *("input_validation_discrete_fail", "input_validation_fail", "malicious_excess_404"),
        *("privilege_permissions_changed", "sensitive_create", "sensitive_delete", "sensitive_read"),
        *("sensitive_update", "sys_crash", "sys_monitor_disabled", "sys_monitor_enabled", "sys_restart"),
        *("sys_shutdown", "sys_startup", "user_archived", "user_created", "user_deleted", "user_updated"),
    ),
    LogLevel.CRITICAL: (
        *("authn_impossible_travel", "authn_password_change_fail", "authn_token_reuse", "authz_fail"),
        *("malicious_attack_tool", "malicious_cors", "malicious_direct_reference", "malicious_extraneous"),
        *("sequence_fail", "session_use_after_expire"),
    ),
}
#: Event name → level.
VOCABULARY: Final = {name: level for level, names in _BY_LEVEL.items() for name in names}


def name_of(event: str) -> str:
    """The static name of an event that may carry details, as the vocabulary writes them (`authz_fail:ada,reports`)."""
    return event.partition(":")[0].strip().lower()


def level_of_event(name: str) -> LogLevel | None:
    """The level of an event, None for a name that the vocabulary doesn't have."""
    return VOCABULARY.get(name)


def nearest(name: str) -> str | None:
    """The name that was probably meant."""
    import difflib  # for a slip alone

    found = difflib.get_close_matches(name[:80], VOCABULARY, n=1, cutoff=0.6)
    return found[0] if found else None
