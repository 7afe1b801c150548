"""A grid in the test's process: nodes are functions from message to message."""

from __future__ import annotations

from collections.abc import Callable

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.serverapp import Grid

Node = Callable[[Message], Message | None]


class FakeGrid(Grid):
    """Deliver messages to functions through Flower's serialization.

    Replies come in ascending order of node id. A node that returns None is silent; one that raises
    replies with an error, as in Flower.
    """

    def __init__(self, nodes: dict[int, Node]) -> None:
        self.nodes = nodes
        self.sent: list[Message] = []
        self.most_pulled_at_once = 0
        self._replies: dict[str, Message] = {}

    def set_run(self, run):
        raise NotImplementedError

    @property
    def run(self):
        raise NotImplementedError

    def create_message(self, content, message_type, dst_node_id, group_id, ttl=None):
        raise NotImplementedError

    def get_node_ids(self):
        return list(self.nodes)

    def push_messages(self, messages):
        ids = []
        for message in sorted(messages, key=lambda m: m.metadata.dst_node_id):
            message_id = f"m{len(self.sent)}"
            message.metadata.__dict__["_message_id"] = message_id
            self.sent.append(message)
            ids.append((message, message_id))
            request = message_from_proto(message_to_proto(message))
            reply = self._answer(request)
            if reply is not None:
                if not reply.has_error():
                    reply.metadata.__dict__["_src_node_id"] = message.metadata.dst_node_id
                reply.metadata.__dict__["_reply_to_message_id"] = message_id
                self._replies[message_id] = message_from_proto(message_to_proto(reply))
        by_message = {id(message): message_id for message, message_id in ids}
        return [by_message[id(message)] for message in messages]

    def _answer(self, request):
        try:
            return self.nodes[request.metadata.dst_node_id](request)
        except Exception as error:
            return Message(Error(code=2, reason=f"{type(error).__name__}: {error}"), reply_to=request)

    def pull_messages(self, message_ids):
        found = [self._replies.pop(i) for i in message_ids if i in self._replies]
        self.most_pulled_at_once = max(self.most_pulled_at_once, len(found))
        return found

    def send_and_receive(self, messages, *, timeout=None):
        return self.pull_messages(sorted(self.push_messages(list(messages)), key=lambda i: int(i[1:])))


def app_node(
    app: ClientApp, partition_id: int, num_partitions: int, run_config: dict, **node_config: str
) -> Node:
    """Return a node that runs a ClientApp, by default on one partition, or with its own node config."""
    context = Context(
        run_id=1,
        node_id=partition_id,
        node_config={"partition-id": partition_id, "num-partitions": num_partitions}
        | {key.replace("_", "-"): value for key, value in node_config.items()},
        state=RecordDict(),
        run_config=run_config,
    )
    return lambda message: app(message, context)
