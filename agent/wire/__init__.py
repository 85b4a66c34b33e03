"""What both ends of a connection share: messages, errors, rules."""
