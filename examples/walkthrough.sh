#!/usr/bin/env bash
# Consumers with curl alone: make one, read, acknowledge, see its lag, know who may enter, go back, and prove that nothing was missed.
#
#   examples/walkthrough.sh            against the service of `make run`; LEDGER_DATA_DIR says where its first-run.json is
set -euo pipefail

first_run="${LEDGER_DATA_DIR:-var}/first-run.json"
value() { python3 -c 'import functools, json, sys
print(functools.reduce(lambda found, name: found[name], sys.argv[2:], json.load(open(sys.argv[1]))))' "$first_run" "$@"; }
base=$(value base_url) scim=$(value scim_base_url)
idp=$(value tokens scim) app=$(value tokens consumer) operator=$(value tokens operator)
name="walk-$RANDOM$RANDOM"

call() { curl -fsS -H "Authorization: Bearer $1" -H "Content-Type: application/json" "${@:2}"; }
show() { python3 -c "import json, sys; d = json.load(sys.stdin); print($1)"; }
active() { call "$idp" -X PATCH "$scim/Users/$1" -d '{"schemas": ["urn:ietf:params:scim:api:messages:2.0:PatchOp"],
  "Operations": [{"op": "replace", "value": {"active": '"$2"'}}]}' >/dev/null; }
group() { call "$idp" "$scim/Groups" -d "{\"schemas\": [\"urn:ietf:params:scim:schemas:core:2.0:Group\"], \"displayName\": \"$name-$1\",
  \"members\": [{\"value\": \"${users[0]}\"}, {\"value\": \"${users[1]}\"}, {\"value\": \"${users[2]}\"}]}" | show 'd["id"]'; }

# Who may enter which of our two groups, from pages of events: the function of docs/consumers.md, "From events to access".
who() { python3 -c '
import json, sys
users, groups, access = sys.argv[1].split(), sys.argv[2].split(), set()
for page in map(json.loads, sys.stdin):
    for event in page["data"]:
        data, kind = event["data"], event["type"]
        if kind == "directory.closed":
            access.clear()
        elif kind in {"group.member_added", "group.member_access_restored"} and data["effective"]:
            access.add((data["group"]["id"], data["member"]["id"]))
        elif kind in {"group.member_removed", "group.member_access_revoked"}:
            access.discard((data["group"]["id"], data["member"]["id"]))
print(sorted(("first second".split()[groups.index(group)], users.index(member) + 1) for group, member in access))
' "${users[*]}" "$doors"; }

echo "# An operator makes a consumer of one directory; it begins now."
call "$operator" -X PUT "$base/v1/consumers/$name" -d '{"directories": ["acme"], "start": "now"}' | show 'd["name"], d["mode"], d["state"]'

echo "# The IdP creates three users and two groups that hold them. The third user leaves; the second leaves and returns; the second group ends."
users=()
for n in 1 2 3; do
  users+=("$(call "$idp" "$scim/Users" -d "{\"schemas\": [\"urn:ietf:params:scim:schemas:core:2.0:User\"], \"userName\": \"$name-$n\"}" | show 'd["id"]')")
done
first=$(group first) second=$(group second)
doors="$first $second"
active "${users[2]}" false
active "${users[1]}" false
active "${users[1]}" true
call "$idp" -X DELETE "$scim/Groups/$second"

echo "# The application reads what comes next. Reading moves nothing."
page=$(call "$app" "$base/v1/consumers/$name/events?limit=100")
echo "$page" | show '[e["type"] for e in d["data"][:3]], len(d["data"])'

echo "# It has done its work up to the third event, and says so."
third=$(echo "$page" | show 'd["data"][2]["id"]')
call "$app" "$base/v1/consumers/$name/ack" -d "{\"through\": \"$third\"}" | show 'd["changed"]'
call "$operator" "$base/v1/consumers/$name" | show '"behind by", d["lag_events"]'

echo "# The rest."
rest=$(call "$app" "$base/v1/consumers/$name/events")
echo "$rest" | show 'len(d["data"])'
after=$(echo "$rest" | show 'd["list_metadata"]["after"]')
call "$app" "$base/v1/consumers/$name/ack" -d "{\"through\": \"$after\"}" | show 'd["changed"]'

echo "# Who may enter now? The leaver is out, who returned is in, and of the second group nothing is left."
echo "$page" | who

echo "# What did it acknowledge, recomputed from the log?"
call "$operator" "$base/v1/consumers/$name/audit" | show '"%d of %d, holes: %s" % (d["acknowledged"], d["expected"], d["holes"])'

echo "# Its database was lost after the third event: what would going back mean, and then do it."
call "$operator" "$base/v1/consumers/$name/seek" -d "{\"to\": \"$third\", \"reason\": \"its disk failed\", \"dry_run\": true}" | show 'd["delivered_again"]'
call "$operator" "$base/v1/consumers/$name/seek" -d "{\"to\": \"$third\", \"reason\": \"its disk failed\"}" | show 'd["direction"]'

echo "# The same events come again, and applied a second time they change nothing."
again=$(call "$app" "$base/v1/consumers/$name/events")
printf '%s\n' "$page" "$again" | who

call "$operator" -X DELETE "$base/v1/consumers/$name"
