// What a client in TypeScript writes against the generated types. tests/docs/test_event_types.py compiles it.
import type { EventType, LedgerEvent } from "../../clients/typescript/events";

export function describe(event: LedgerEvent): string {
  switch (event.type) {
    case "group.member_added":
      return event.data.effective ? `${event.data.member.id} enters ${event.data.group.id}` : "stored";
    case "user.updated":
      if ("object" in event.data) {
        const department: string | undefined = event.data.user?.department;
        return `${event.data.object.userName} ${department ?? ""} ${event.data.changes.length}`;
      }
      return "withheld" in event.data ? "hidden" : "gone";
    case "token.rotated":
      return "object" in event.data ? event.data.object.superseded_by : "";
    default:
      return event.type satisfies EventType;
  }
}

export function mistakes(event: LedgerEvent): void {
  // @ts-expect-error a type that does not exist
  if (event.type === "user.renamed") return;
  // @ts-expect-error only some data has an object
  event.data.object;
  // @ts-expect-error a number
  const seq: string = event.seq;
  if (event.type === "directory.surge_limited" && "object" in event.data) {
    // @ts-expect-error "alarm" or "hold"
    const wrong: boolean = event.data.object.action === "wait";
    void wrong;
  }
  void seq;
}
