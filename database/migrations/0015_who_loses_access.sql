-- serves: 0010
-- one by one
-- Who loses access by any way, for the surge brake. 6164: user.deactivated, user.deleted, group.member_removed, group.member_access_revoked.
-- commits_revoking stays, for processes of the release before.
create index concurrently if not exists commits_ending_access on commits (directory, at, seq) where types & 6164 <> 0;
