#!/usr/bin/env python3
"""Talk to a running Falaj node with nothing but pyarrow.

Every command is a few lines of plain Arrow Flight; read them as examples.

    falaj_flight.py list
    falaj_flight.py produce payments events.ndjson --producer till-7 --sequence 0
    falaj_flight.py lookup card_velocity --keys '{"card": ["c1", "c2"]}'
    falaj_flight.py lookup card_velocity merchant_risk.score --keys keys.json --as-of 1732000000000000
    falaj_flight.py scan card_velocity --as-of 1732000000000000
    falaj_flight.py tail payments --from-t 1732000000000000
    falaj_flight.py action status

Connection: --url, --ca and --token-file, or FALAJ_URL, FALAJ_CA and FALAJ_TOKEN_FILE in the
environment.
"""

import argparse
import json
import os
import sys
import threading

import pyarrow as pa
import pyarrow.flight as flight
import pyarrow.json as pa_json

ERRORS = (pa.ArrowException, flight.FlightError)
STATUS = ["PRESENT", "NULL", "NOT_FOUND", "EXPIRED", "ERASED", "UNAVAILABLE", "ERROR"]


class Falaj:
    """A connection: the certificate authority of the node and the token go with every call."""

    def __init__(self, url, ca=None, token=None):
        arguments = {}
        if ca:
            with open(ca, "rb") as file:
                arguments["tls_root_certs"] = file.read()
        self.client = flight.FlightClient(url.replace("https://", "grpc+tls://"), **arguments)
        headers = [(b"authorization", b"Bearer " + token.encode())] if token else []
        self.options = flight.FlightCallOptions(headers=headers)

    def list(self, prefix=""):
        """Topics and views: (path, schema, description)."""
        for info in self.client.list_flights(prefix.encode(), self.options):
            path = [part.decode() for part in info.descriptor.path]
            yield path, info.schema, json.loads(info.app_metadata), info.total_records

    def schema(self, *path):
        """The schema of ("topics", NAME) or ("features", VIEW)."""
        descriptor = flight.FlightDescriptor.for_path(*path)
        return self.client.get_schema(descriptor, self.options).schema

    def produce(self, topic, batches, schema, producer=None, sequence=None):
        """Sends batches and yields one acknowledgement (a dict) per batch, in order.

        With `producer` and `sequence` a repeated call is recognised, and answered with the original
        `t`. Batches are sent while acknowledgements are read: never send many without reading.
        """
        descriptor = flight.FlightDescriptor.for_path("topics", topic)
        writer, acks = self.client.do_put(descriptor, schema, self.options)
        failure = []

        def send():
            number = sequence
            try:
                for batch in batches:
                    if producer is None:
                        writer.write_batch(batch)
                    else:
                        options = {"producer": producer, "sequence": number}
                        writer.write_with_metadata(batch, json.dumps(options).encode())
                        number += batch.num_rows
                writer.done_writing()
            except ERRORS as error:
                failure.append(error)

        sender = threading.Thread(target=send)
        sender.start()
        try:
            while (ack := acks.read()) is not None:
                yield json.loads(ack.to_pybytes())
        finally:
            sender.join()
            writer.close()  # raises what the node refused
        if failure:
            raise failure[0]

    def features(self, views, key_schema):
        """Opens a stream for views ("VIEW" or "VIEW.COLUMN"); keep it open and ask it often."""
        return FeatureStream(self, views, key_schema)

    def scan(self, view, as_of=None, columns=None):
        """A whole view as a table; its `T` is in the schema's metadata as `falaj.t`."""
        ticket = {"view": view}
        if as_of is not None:
            ticket["as_of"] = as_of
        if columns:
            ticket["columns"] = columns
        return self.read(ticket).read_all()

    def read(self, ticket):
        """A stream of batches for a ticket."""
        return self.client.do_get(flight.Ticket(json.dumps(ticket).encode()), self.options)

    def action(self, name):
        """The answer to an action: status, healthz, catalog or metrics."""
        results = self.client.do_action(flight.Action(name, b""), self.options)
        return b"".join(result.body.to_pybytes() for result in results).decode()


class FeatureStream:
    """Keys in, rows out, on one open stream."""

    def __init__(self, falaj, views, key_schema):
        descriptor = flight.FlightDescriptor.for_path("features", *views)
        self.writer, self.reader = falaj.client.do_exchange(descriptor, falaj.options)
        self.writer.begin(key_schema)

    def lookup(self, keys, **options):
        """Options: as_of, min_t, timeout_ms, id. Returns (batch, metadata).

        The batch has the key columns, the value columns and `__status`: per row one number (see
        STATUS) for each value column.
        """
        if options:
            self.writer.write_with_metadata(keys, json.dumps(options).encode())
        else:
            self.writer.write_batch(keys)
        chunk = self.reader.read_chunk()
        metadata = json.loads(chunk.app_metadata.to_pybytes())
        if "error" in metadata:
            raise RuntimeError(metadata["error"]["message"])
        return chunk.data, metadata

    def close(self):
        self.writer.done_writing()
        self.writer.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def rows_of(batch):
    """A lookup's or scan's rows as dicts, each value with its status where it has none."""
    columns = batch.schema.names
    status_column = columns.index("__status")
    values = columns[status_column - batch.schema.field("__status").type.list_size : status_column]
    for row in batch.to_pylist():
        statuses = dict(zip(values, row.pop("__status")))
        yield {
            name: value if statuses.get(name, 0) == 0 else STATUS[statuses[name]]
            for name, value in row.items()
        }


def read_events(path, schema):
    """Batches of an NDJSON file (`-`: standard input) with the columns that it has."""
    source = sys.stdin.buffer if path == "-" else path
    options = pa_json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="error")
    if path == "-":
        source = pa.BufferReader(source.read())
    table = pa_json.read_json(source, parse_options=options)
    return table.schema, table.to_batches(max_chunksize=1000)


def show(value):
    print(json.dumps(value, default=str))


def command_list(falaj, arguments):
    for path, schema, about, records in falaj.list(arguments.prefix):
        show(
            {
                "path": path,
                "columns": {field.name: str(field.type) for field in schema},
                "key": about["key"],
                "records": records if records >= 0 else None,
                "details": about["details"],
            }
        )


def command_produce(falaj, arguments):
    schema, batches = read_events(arguments.file, falaj.schema("topics", arguments.topic))
    numbering = (arguments.producer, arguments.sequence)
    for ack in falaj.produce(arguments.topic, batches, schema, *numbering):
        show(ack)


def command_lookup(falaj, arguments):
    text = arguments.keys
    if not text.lstrip().startswith("{"):
        with open(text, encoding="utf-8") as file:
            text = file.read()
    keys = json.loads(text)
    fields = {}
    for view in arguments.views:
        for name in {view, view.rpartition(".")[0]} - {""}:
            try:
                fields.update({field.name: field for field in falaj.schema("features", name)})
            except ERRORS:
                continue  # `name` is VIEW.COLUMN; the stream says so if it is neither
    columns = {
        name: pa.array(values, fields[name].type if name in fields else None)
        for name, values in keys.items()
    }
    batch = pa.RecordBatch.from_pydict(columns)
    options = {"as_of": arguments.as_of, "min_t": arguments.min_t}
    options = {name: value for name, value in options.items() if value is not None}
    with falaj.features(arguments.views, batch.schema) as stream:
        answer, metadata = stream.lookup(batch, **options)
    show({"t": metadata["t"], "counts": metadata["counts"]})
    for row in rows_of(answer):
        show(row)


def command_scan(falaj, arguments):
    table = falaj.scan(arguments.view, arguments.as_of)
    show({"t": int(table.schema.metadata[b"falaj.t"]), "rows": table.num_rows})
    for batch in table.to_batches():
        for row in rows_of(batch):
            show(row)


def command_tail(falaj, arguments):
    ticket = {"topic": arguments.topic, "follow": arguments.follow}
    for name in ["from_t", "to_t", "limit"]:
        if getattr(arguments, name) is not None:
            ticket[name] = getattr(arguments, name)
    for chunk in falaj.read(ticket):
        for row in chunk.data.to_pylist():
            row["__event_id"] = row["__event_id"].hex()
            show(row)


def command_action(falaj, arguments):
    print(falaj.action(arguments.name))


def parse():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    environment = os.environ.get
    parser.add_argument("--url", default=environment("FALAJ_URL", "grpc+tls://127.0.0.1:8815"))
    parser.add_argument("--ca", default=environment("FALAJ_CA"), help="the node's ca.pem")
    parser.add_argument("--token-file", default=environment("FALAJ_TOKEN_FILE"))
    commands = parser.add_subparsers(required=True)

    command = commands.add_parser("list", help="topics and views")
    command.add_argument("prefix", nargs="?", default="")
    command.set_defaults(run=command_list)

    command = commands.add_parser("produce", help="events from an NDJSON file to a topic")
    command.add_argument("topic")
    command.add_argument("file", help="NDJSON; - for standard input")
    command.add_argument("--producer", help="a stable name, so that a retry is recognised")
    command.add_argument("--sequence", type=int, default=0, help="number of the first event")
    command.set_defaults(run=command_produce)

    command = commands.add_parser("lookup", help="features of keys")
    command.add_argument("views", nargs="+", help="VIEW or VIEW.COLUMN")
    command.add_argument("--keys", required=True, help="JSON object of columns, or a file of one")
    command.add_argument("--as-of", type=int, help="T in microseconds")
    command.add_argument("--min-t", type=int, help="wait until this T is readable")
    command.set_defaults(run=command_lookup)

    command = commands.add_parser("scan", help="all rows of a view")
    command.add_argument("view")
    command.add_argument("--as-of", type=int, help="T in microseconds")
    command.set_defaults(run=command_scan)

    command = commands.add_parser("tail", help="events of a topic")
    command.add_argument("topic")
    command.add_argument("--from-t", type=int)
    command.add_argument("--to-t", type=int)
    command.add_argument("--limit", type=int)
    command.add_argument("--follow", action="store_true", help="go on with new events")
    command.set_defaults(run=command_tail)

    command = commands.add_parser("action", help="status, healthz, catalog or metrics")
    command.add_argument("name")
    command.set_defaults(run=command_action)
    return parser.parse_args()


def main():
    arguments = parse()
    token = None
    if arguments.token_file:
        with open(arguments.token_file, encoding="ascii") as file:
            token = file.read().strip()
    try:
        arguments.run(Falaj(arguments.url, arguments.ca, token), arguments)
    except (*ERRORS, RuntimeError) as error:
        sys.exit(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
