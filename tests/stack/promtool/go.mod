// promtool, which checks and tests the exported rules.
module stack/promtool

go 1.25.0
