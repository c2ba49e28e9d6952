"""What process, machine, application and business are doing: readings, instruments, and their snapshot."""
