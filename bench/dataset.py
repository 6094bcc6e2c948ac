"""The large data set that most rows share: one group of all users, many small groups, a second directory."""

import random
from dataclasses import dataclass
from functools import cached_property

from bench.environment import Service, Stage
from bench.figures import Sizes

SMALL_GROUPS = 400
SMALL_GROUP_MEMBERS = 10
TEAMS = 100
TEAM_MEMBERS = 100
OTHER = "other"
CROWDED = "crowded"
GROUPS_OF_EACH = 19  # of the crowded directory


@dataclass
class Dataset:
    stage: Stage
    sizes: Sizes

    @cached_property
    def service(self) -> Service:
        self.stage.say(f"making {self.sizes.users} users")
        service = self.stage.service()
        service.directory(OTHER)
        service.directory(CROWDED)
        return service

    @cached_property
    def users(self) -> list[str]:
        """Members of the large group."""
        return self.service.make_users(self.sizes.users)

    @cached_property
    def spare(self) -> list[str]:
        """Users who are in no group yet; each row takes what it needs."""
        return self.service.make_users(12_000)

    def take_spare(self, number: int) -> list[str]:
        taken = self.spare[-number:]
        del self.spare[-number:]
        return taken

    @cached_property
    def large_group(self) -> str:
        everyone = self.users
        self.stage.say(f"making a group of {len(everyone)}")
        return self.service.make_groups([everyone])[0]

    @cached_property
    def small_groups(self) -> list[str]:
        everyone, size = self.users, SMALL_GROUP_MEMBERS
        return self.service.make_groups([everyone[i * size : (i + 1) * size] for i in range(SMALL_GROUPS)])

    @cached_property
    def teams(self) -> list[str]:
        """Groups for audit questions; with the further groups of all users they make up the promised number of memberships."""
        everyone, size = self.users, TEAM_MEMBERS
        self.stage.say("making teams")
        if self.sizes.groups_of_all:
            self.service.make_groups([everyone] * self.sizes.groups_of_all, connections=1)
        return self.service.make_groups([everyone[i * size : (i + 1) * size] for i in range(TEAMS)])

    @cached_property
    def crowded_groups(self) -> int:
        """How many groups the crowded directory has. A fifth as many users as the large group has are each in GROUPS_OF_EACH of them."""
        self.stage.say("making users who are in many groups")
        users = self.service.make_users(self.sizes.users // 5, directory=CROWDED)
        dice, groups = random.Random(19), [list[str]() for _ in range(self.sizes.users // 100)]
        for user in users:
            for members in dice.sample(groups, GROUPS_OF_EACH):
                members.append(user)
        self.service.make_groups(groups, directory=CROWDED)
        return len(groups)
