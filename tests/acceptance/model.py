"""A model of a directory that does not use the implementation, and a state computed from its events.

Generator and judge are separate.
"""

import random
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Model:
    """The state that must hold after the requests that were answered with success."""

    users: dict[str, dict[str, Any]] = field(default_factory=dict)  # id -> {"userName", "active", "title"}
    groups: dict[str, dict[str, Any]] = field(default_factory=dict)  # id -> {"displayName", "members": set}

    def snapshot(self) -> dict[str, Any]:
        return {
            "users": {u: dict(v) for u, v in self.users.items()},
            "groups": {g: {"displayName": v["displayName"], "members": set(v["members"])} for g, v in self.groups.items()},
        }


@dataclass
class Fold:
    """The state computed from the public events alone; it asserts the rules of the stream on the way."""

    seq: int = 0
    users: dict[str, dict[str, Any]] = field(default_factory=dict)
    groups: dict[str, dict[str, Any]] = field(default_factory=dict)
    # (group, member), computed from the events that grant and end access
    access: set[tuple[str, str]] = field(default_factory=set)
    directory: str = "active"

    def apply(self, event: dict[str, Any]) -> None:
        assert event["seq"] == self.seq + 1, "seq is dense"
        self.seq = event["seq"]
        kind, subject = event["type"], event["subject"]["id"]
        data = event["data"]
        if kind in {"directory.paused", "directory.resumed", "directory.closed", "directory.deleted"}:
            self._directory(kind)
        elif event["cause"] == "idp":
            assert self.directory == "active", "a paused or closed directory has no events of its IdP"
        if kind in {"user.created", "user.updated", "user.deactivated", "user.reactivated"}:
            shown = data["object"]
            self.users[subject] = {"userName": shown["userName"], "active": shown["active"], "title": shown.get("title")}
        elif kind == "user.deleted":
            assert not [g for g, v in self.groups.items() if subject in v["members"]], "removals come before the deletion"
            del self.users[subject]
        elif kind in {"group.created", "group.updated"}:
            members = self.groups.get(subject, {}).get("members", set())
            self.groups[subject] = {"displayName": data["object"]["displayName"], "members": members}
        elif kind == "group.deleted":
            assert not self.groups[subject]["members"], "removals come before the deletion"
            del self.groups[subject]
        elif kind.startswith("group.member_"):
            self._membership(kind, subject, data)
        if event["seq"] == event["commit"]["first_seq"] + event["commit"]["size"] - 1:
            self.whole_commit()

    def _directory(self, kind: str) -> None:
        before = {"directory.paused": {"active"}, "directory.resumed": {"paused"}, "directory.deleted": {"closed"}}
        assert self.directory in before.get(kind, {"active", "paused"}), "each membership is granted once"
        self.directory = {"directory.resumed": "active"}.get(kind, kind.removeprefix("directory."))
        if kind == "directory.closed":  # all access ends, whatever is removed afterwards
            self.access.clear()
            for user in self.users.values():
                user["active"] = False
        if kind == "directory.deleted":
            assert not self.users
            assert not self.groups

    def _membership(self, kind: str, group: str, data: dict[str, Any]) -> None:
        member, edge = data["member"]["id"], (group, data["member"]["id"])
        members = self.groups[group]["members"]
        if kind == "group.member_added":
            assert member not in members, "an edge is added once"
            members.add(member)
            if data["effective"]:
                self.access.add(edge)
        elif kind == "group.member_removed":
            assert member in members, "only an existing membership is removed"
            members.remove(member)
            assert data["effective"] is (edge in self.access)
            self.access.discard(edge)
        elif kind == "group.member_access_revoked":
            self.access.remove(edge)
        else:
            assert edge not in self.access
            self.access.add(edge)

    def whole_commit(self) -> None:
        """After every commit no inactive or deleted user has access, and every active member has it."""
        expected = {
            (g, m)
            for g, v in self.groups.items()
            for m in v["members"]
            if self.directory not in {"closed", "deleted"} and (self.users[m]["active"] if m in self.users else m in self.groups)
        }
        assert self.access == expected


class Workload:
    """Random SCIM requests whose outcomes the model foresees."""

    def __init__(self, seed: int, prefix: str = "") -> None:
        self.random = random.Random(seed)
        self.model = Model()
        self.count = 0
        self.prefix = prefix  # of all names, if several workloads create resources in one directory

    def step(self) -> tuple[str, str, dict[str, Any] | None, Any]:
        """Returns (method, path, body, function that applies the answer to the model)."""
        users, groups = list(self.model.users), list(self.model.groups)
        choices = [self.create_user] * 3 + [self.create_group]
        if users:
            choices += [self.toggle] * 3 + [self.retitle, self.rename, self.put_user, self.delete_user]
        if users and groups:
            choices += [self.patch_members] * 5 + [self.put_group, self.replace_members, self.nest]
        if groups:
            choices += [self.rename_group, self.delete_group]
        return self.random.choice(choices)(users, groups)

    def _name(self) -> str:
        self.count += 1
        return f"{self.prefix}Person{self.count}@Example.org"

    def create_user(self, users, groups):
        name, active = self._name(), self.random.random() < 0.85
        body = {"schemas": [USER], "userName": name, "active": active}

        def done(answer):
            self.model.users[answer["id"]] = {"userName": name, "active": active, "title": None}

        return "POST", "/Users", body, done

    def _patch(self, *operations):
        return {"schemas": ["urn:ietf:params:scim:api:messages:2.0:PatchOp"], "Operations": list(operations)}

    def toggle(self, users, groups):
        user = self.random.choice(users)
        active = self.random.random() < 0.5
        value = self.random.choice([active, str(active)])
        operation = self.random.choice(
            [{"op": "replace", "value": {"active": active}}, {"op": "Replace", "path": "active", "value": value}]
        )
        return "PATCH", f"/Users/{user}", self._patch(operation), lambda _: self.model.users[user].update(active=active)

    def retitle(self, users, groups):
        user, title = self.random.choice(users), self.random.choice(["Boss", "Clerk", None])
        operation = {"op": "replace", "path": "title", "value": title} if title else {"op": "remove", "path": "title"}
        return "PATCH", f"/Users/{user}", self._patch(operation), lambda _: self.model.users[user].update(title=title)

    def rename(self, users, groups):
        user, name = self.random.choice(users), self._name()
        operation = {"op": "replace", "path": "userName", "value": name}
        return "PATCH", f"/Users/{user}", self._patch(operation), lambda _: self.model.users[user].update(userName=name)

    def put_user(self, users, groups):
        user, active = self.random.choice(users), self.random.random() < 0.6
        name = self.model.users[user]["userName"]
        body = {"schemas": [USER], "userName": name, "active": active, "title": "Put"}
        return "PUT", f"/Users/{user}", body, lambda _: self.model.users[user].update(active=active, title="Put")

    def delete_user(self, users, groups):
        user = self.random.choice(users)

        def done(_):
            del self.model.users[user]
            for group in self.model.groups.values():
                group["members"].discard(user)

        return "DELETE", f"/Users/{user}", None, done

    def _some(self, users):
        return self.random.sample(users, min(len(users), self.random.randint(0, 4)))

    def create_group(self, users, groups):
        self.count += 1
        name, members = f"{self.prefix}Group {self.count}", self._some(users)
        body = {"schemas": [GROUP], "displayName": name, "members": [{"value": m} for m in members]}

        def done(answer):
            self.model.groups[answer["id"]] = {"displayName": name, "members": set(members)}

        return "POST", "/Groups", body, done

    def patch_members(self, users, groups):
        group = self.random.choice(groups)
        after = set(self.model.groups[group]["members"])
        operations = []
        for _ in range(self.random.randint(1, 3)):
            chosen = self._some(users)
            kind = self.random.choice(["add", "remove", "remove_list"])
            if kind == "add" and chosen:
                operations.append({"op": "add", "path": "members", "value": [{"value": m} for m in chosen]})
                after |= set(chosen)
            elif kind == "remove" and chosen:
                operations.append({"op": "remove", "path": f'members[value eq "{chosen[0]}"]'})
                after.discard(chosen[0])
            elif chosen:
                operations.append({"op": "Remove", "path": "members", "value": [{"value": m} for m in chosen]})
                after -= set(chosen)
        if not operations:
            operations = [{"op": "replace", "path": "displayName", "value": self.model.groups[group]["displayName"]}]
        return "PATCH", f"/Groups/{group}", self._patch(*operations), lambda _: self.model.groups[group].update(members=after)

    def replace_members(self, users, groups):
        group, members = self.random.choice(groups), self._some(users)
        operation = {"op": "replace", "path": "members", "value": [{"value": m} for m in members]}
        return (
            "PATCH",
            f"/Groups/{group}",
            self._patch(operation),
            lambda _: self.model.groups[group].update(members=set(members)),
        )

    def put_group(self, users, groups):
        self.count += 1
        group, members, name = self.random.choice(groups), self._some(users), f"{self.prefix}Put {self.count}"
        body = {"schemas": [GROUP], "displayName": name, "members": [{"value": m} for m in members]}
        return "PUT", f"/Groups/{group}", body, lambda _: self.model.groups[group].update(members=set(members), displayName=name)

    def nest(self, users, groups):
        group, inner = self.random.choice(groups), self.random.choice(groups)
        if group == inner:
            return self.create_user(users, groups)
        operation = {"op": "add", "path": "members", "value": [{"value": inner, "type": "Group"}]}
        return "PATCH", f"/Groups/{group}", self._patch(operation), lambda _: self.model.groups[group]["members"].add(inner)

    def rename_group(self, users, groups):
        self.count += 1
        group, name = self.random.choice(groups), f"{self.prefix}Renamed {self.count}"
        operation = {"op": "replace", "value": {"id": group, "displayName": name}}
        return "PATCH", f"/Groups/{group}", self._patch(operation), lambda _: self.model.groups[group].update(displayName=name)

    def delete_group(self, users, groups):
        group = self.random.choice(groups)

        def done(_):
            del self.model.groups[group]
            for other in self.model.groups.values():
                other["members"].discard(group)

        return "DELETE", f"/Groups/{group}", None, done


USER = "urn:ietf:params:scim:schemas:core:2.0:User"
GROUP = "urn:ietf:params:scim:schemas:core:2.0:Group"
