// Made from wire.go by TestWire_types_matchTheFile; do not edit.

export interface Snapshot {
  assets: string;
  tailnet: string;
  version: string;
  service: string;
  mode: string;
  services: ServiceName[];
  regions: string[];
  servers: Server[];
  entries: Entry[];
  problems: Problem[];
  changes: Change[];
  held: Held[];
  notices: Notice[];
}

export interface Tick {
  at: number;
  servers: [number, number, number, number, number, number][];
  entries: [number, number, number, number][];
  flows: number[][];
  total: [number, number, number, number];
  crossing: number;
  window: number;
  reporting: number;
}

export interface History {
  start: number;
  step: number;
  regions: string[];
  shares: number[][];
  rate: number[];
  latency: [number, number][];
}

export interface Viewer {
  name: string;
  role: Role;
}

export interface Action {
  act: ActionKind;
  service: string;
  device: string;
  minutes: number;
}

export interface Preview {
  regions: string[];
  before: number[];
  after: number[];
  stays: string;
}

export interface ServiceName {
  name: string;
  serving: number;
  known: number;
}

export interface Server {
  id: string;
  device: string;
  name: string;
  region: string;
  zone: string;
  priority: number;
  tags: string[];
  weight: number;
  state: State;
  why: string;
  held: boolean;
  word: Drain | null;
}

export interface Entry {
  id: string;
  name: string;
  region: string;
  sync: Sync;
  since: number;
  words: string;
}

export interface Problem {
  severity: Severity;
  about: About;
  id: string;
  name: string;
  title: string;
  words: string;
  mend: string;
  since: number;
}

export interface Change {
  id: string;
  at: number;
  kind: string;
  name: string;
  text: string;
  by: string;
  effect: string;
}

export interface Held {
  service: string;
  reason: string;
  names: string[];
  until: number;
}

export interface Notice {
  title: string;
  text: string;
}

export type Role = "" | "view" | "operate";

export type ActionKind = "drain" | "restore" | "accept";

export type State = "serving" | "drained" | "expiring" | "expired" | "offline";

export interface Drain {
  by: string;
  at: number;
  until: number;
}

export type Sync = "in sync" | "pending" | "rejected";

export type Severity = "error" | "warning";

export type About = "server" | "entry" | "";
