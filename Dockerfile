# The sample application, or yours: `docker build -t streamlit-extension .`, then a Dockerfile of two lines:
#   FROM streamlit-extension
#   COPY app.py .            (and the CMD ["run", "app.py"])
# Every package is of the version and has the hash that requirements/image.txt says.

FROM python:3.11.14-slim-bookworm AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
COPY requirements/build.txt requirements/image.txt requirements/
RUN python -m venv /opt/build \
 && /opt/build/bin/python -m pip install --no-deps --require-hashes --only-binary :all: -r requirements/build.txt \
 && python -m venv --without-pip /opt/app \
 && /opt/build/bin/python -m pip --python /opt/app/bin/python install --no-deps --require-hashes --only-binary :all: -r requirements/image.txt
COPY pyproject.toml README.md LICENSE ./
COPY otel otel
COPY streamlit_extension streamlit_extension
RUN /opt/build/bin/python -m pip wheel --no-deps --no-build-isolation --wheel-dir /opt/wheels . \
 && /opt/build/bin/python -m pip --python /opt/app/bin/python install --no-deps --no-index /opt/wheels/*.whl

FROM python:3.11.14-slim-bookworm
RUN groupadd --gid 10001 app \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /app --shell /usr/sbin/nologin app \
 && install --directory --owner 10001 --group 10001 --mode 0700 /var/lib/streamlit-extension
COPY --from=build /opt/app /opt/app
COPY scripts/health_check.py /opt/health_check.py
# Streamlit: reachable from outside the container, no browser to open, no sources to watch, nobody to tell.
ENV PATH=/opt/app/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    STREAMLIT_SERVER_ADDRESS=0.0.0.0 \
    STREAMLIT_SERVER_PORT=8501 \
    STREAMLIT_SERVER_HEADLESS=true \
    STREAMLIT_SERVER_FILE_WATCHER_TYPE=none \
    STREAMLIT_BROWSER_GATHER_USAGE_STATS=false \
    STX_DATA_DIR=/var/lib/streamlit-extension
WORKDIR /app
USER 10001:10001
# Spool, token, the sample's SQLite file. A network file system is refused: SQLite's locks don't hold there.
VOLUME /var/lib/streamlit-extension
EXPOSE 8501
# The first one starts the four phases of a stop; give it longer than shutdown_budget_s (25 s).
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
  CMD ["python", "/opt/health_check.py", "--endpoint", "health", "--probe", "--timeout", "4"]
ENTRYPOINT ["streamlit-extension"]
CMD ["demo"]
