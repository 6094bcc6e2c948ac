"""Read models that each commit updates: users, groups, memberships and states. They hold pointers and HMACs, no attributes."""
