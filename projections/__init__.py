"""Read models kept in the commit: users, groups, memberships and resource states, as pointers and blind keys only."""
