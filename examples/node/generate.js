// Generates the client from protos/ into gen/, with the protoc of the Python package grpcio-tools: `pip install
// grpcio-tools googleapis-common-protos`, and PYTHON where `python3` is not the one that has them. Any other protoc
// does as well, given the directory that holds google/rpc/status.proto.
import { execFileSync } from "node:child_process";
import { mkdirSync, readdirSync, rmSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const protos = join(here, "..", "..", "protos");
const python = process.env.PYTHON || "python3";
const common = execFileSync(
  python,
  ["-c", "from google.rpc import status_pb2; print(status_pb2.__file__.rsplit('/google/rpc/', 1)[0])"],
  { encoding: "utf8" },
).trim();

const gen = join(here, "gen");
rmSync(gen, { recursive: true, force: true });
mkdirSync(gen);
execFileSync(
  python,
  [
    "-m", "grpc_tools.protoc",
    `-I${protos}`,
    `-I${common}`,
    `--plugin=protoc-gen-es=${join(here, "node_modules", ".bin", "protoc-gen-es")}`,
    `--es_out=${gen}`,
    "--es_opt=target=js,import_extension=js",
    ...["status", "error_details"].map((name) => join(common, "google", "rpc", `${name}.proto`)),
    ...readdirSync(join(protos, "vitrine", "v1")).map((name) => join(protos, "vitrine", "v1", name)),
  ],
  { stdio: "inherit" },
);
