#!/usr/bin/env bash
# Consumers with curl alone: make one, read, acknowledge, see its lag, go back, and prove that nothing was missed.
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

echo "# An operator makes a consumer of user events; it begins now."
call "$operator" -X PUT "$base/v1/consumers/$name" -d '{"types": ["user.*"], "start": "now"}' | show 'd["name"], d["mode"], d["state"]'

echo "# The IdP creates three users, one of them leaves."
for n in 1 2 3; do
  user=$(call "$idp" "$scim/Users" -d "{\"schemas\": [\"urn:ietf:params:scim:schemas:core:2.0:User\"], \"userName\": \"$name-$n\"}" | show 'd["id"]')
done
call "$idp" -X PATCH "$scim/Users/$user" -d '{"schemas": ["urn:ietf:params:scim:api:messages:2.0:PatchOp"],
  "Operations": [{"op": "replace", "value": {"active": false}}]}' >/dev/null

echo "# The application reads what comes next. Reading moves nothing."
page=$(call "$app" "$base/v1/consumers/$name/events?limit=10")
echo "$page" | show '[e["type"] for e in d["data"]]'

echo "# It has done its work up to the third event, and says so."
third=$(echo "$page" | show 'd["data"][2]["id"]')
call "$app" "$base/v1/consumers/$name/ack" -d "{\"through\": \"$third\"}" | show 'd["changed"]'
call "$operator" "$base/v1/consumers/$name" | show '"behind by", d["lag_events"]'

echo "# The rest."
page=$(call "$app" "$base/v1/consumers/$name/events")
echo "$page" | show '[e["type"] for e in d["data"]]'
after=$(echo "$page" | show 'd["list_metadata"]["after"]')
call "$app" "$base/v1/consumers/$name/ack" -d "{\"through\": \"$after\"}" | show 'd["changed"]'

echo "# What did it acknowledge, recomputed from the log?"
call "$operator" "$base/v1/consumers/$name/audit" | show '"%d of %d, holes: %s" % (d["acknowledged"], d["expected"], d["holes"])'

echo "# Its database was lost after the first event: what would going back mean, and then do it."
first=$(call "$app" "$base/v1/events?directory=acme&limit=1000&types=user.created" | show "[e['id'] for e in d['data']][-3]")
call "$operator" "$base/v1/consumers/$name/seek" -d "{\"to\": \"$first\", \"reason\": \"its disk failed\", \"dry_run\": true}" | show 'd["delivered_again"]'
call "$operator" "$base/v1/consumers/$name/seek" -d "{\"to\": \"$first\", \"reason\": \"its disk failed\"}" | show 'd["direction"]'
call "$app" "$base/v1/consumers/$name/events" | show '[e["type"] for e in d["data"]]'

call "$operator" -X DELETE "$base/v1/consumers/$name"
