"""The rules of the preflight: functions of what the stack wants and what the account says."""
