"""Another credit, whose statistics are within the calls of one agent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from agentlightning.credit import Branch, Credit, CreditChoice, load_credit, name_of
from agentlightning.errors import ConfigError
from agentlightning.training_rows import Group

AT = "algorithm.credit.of"


class PerAgentConfig(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """``of`` is the credit of each agent's calls: a name, or ``{name: …, option: …}``."""

    of: CreditChoice


class PerAgent(Credit):
    """Any credit, for the calls of each agent by itself (Dr.MAS; prime-rl's algo/rae.py has a mean per role).

    For each agent the credit sees the groups with that agent's calls alone, without the rollouts in which it made none:
    their rewards say nothing of it. A rollout's outcome is then with the last call of each agent. Needs the agents'
    names. To take where several agents share a policy, and an outcome means something else for each: one that is asked
    only in hard rollouts is not at fault for them. Numbers for the log have the agent's name before them where there
    are several agents.
    """

    Config = PerAgentConfig

    def __init__(self, config: PerAgentConfig) -> None:
        super().__init__(config)
        if name_of(self.config.of) == "per_agent":
            raise ConfigError(f"{AT}.name: per_agent within per_agent changes nothing: name another credit")
        load_credit(self.config.of, at=AT)
        self._credits: dict[str | None, Credit] = {}

    async def explore(self, groups: Sequence[Group], branch: Branch) -> None:
        for agent in _agents(groups):
            seen = [_of_agent(group, agent) for group in groups]
            known = [len(one.rollouts) for one in seen]
            await self._credit_of(agent).explore(seen, branch)
            for group, one, count in zip(groups, seen, known, strict=True):
                group.rollouts += one.rollouts[count:]

    def assign(self, groups: Sequence[Group]) -> Mapping[str, float]:
        numbers: dict[str, float] = {}
        agents = _agents(groups)
        for agent in agents:
            seen = [one for one in (_of_agent(group, agent) for group in groups) if one.rollouts]
            found = self._credit_of(agent).assign(seen) or {}
            numbers |= {f"{agent}/{key}" if len(agents) > 1 else key: number for key, number in found.items()}
        return numbers

    def _credit_of(self, agent: str | None) -> Credit:
        """The agent's own, which may remember what it explored."""
        if agent not in self._credits:
            self._credits[agent] = load_credit(self.config.of, at=AT)
        return self._credits[agent]


def _agents(groups: Sequence[Group]) -> list[str | None]:
    found = {row.agent for group in groups for row in group.rows}
    return sorted(found, key=lambda agent: (agent is not None, agent or ""))


def _of_agent(group: Group, agent: str | None) -> Group:
    own = group.with_rows(lambda row: row.agent == agent)
    own.rollouts = [member for member in own.rollouts if member.rows]
    return own
