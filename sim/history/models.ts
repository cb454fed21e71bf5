/** Sequential objects whose histories are judged: a register, and a table of registers. */
import type { Model } from "./types.ts";

export type Value = number | string;

export type RegisterOp =
  | { readonly kind: "read" }
  | { readonly kind: "write"; readonly value: Value }
  /** Writes `to` if the register holds `from`. */
  | { readonly kind: "cas"; readonly from: Value | null; readonly to: Value };

export type RegisterResult =
  /** Null: the register holds nothing. */
  | { readonly kind: "read"; readonly value: Value | null }
  | { readonly kind: "write" }
  /** False: it held something else than `from`. */
  | { readonly kind: "cas"; readonly swapped: boolean };

/** One register that holds nothing at first. */
export const register: Model<Value | null, RegisterOp, RegisterResult> = {
  initial: null,
  step: stepRegister,
  readsOnly: (op, result) =>
    op.kind === "read" || (op.kind === "cas" && result?.kind === "cas" && !result.swapped),
  keyOf: keyOfValue,
  tellsApart: (op, result) => {
    if (op.kind === "cas") return keyOfValue(op.from);
    return op.kind === "read" && result?.kind === "read" ? keyOfValue(result.value) : null;
  },
  opKeyOf: keyOfRegisterOp,
};

export type KvOp = RegisterOp & { readonly key: string };

/** One register for each key, judged key by key. */
export const kv: Model<Value | null, KvOp, RegisterResult> = {
  ...register,
  opKeyOf: (op) => `${op.key} ${keyOfRegisterOp(op)}`,
  partOf: (op) => op.key,
};

function stepRegister(
  state: Value | null,
  op: RegisterOp,
  result: RegisterResult | null,
): Value | null | undefined {
  // An answer of another kind than its question is never right.
  if (result !== null && result.kind !== op.kind) return undefined;
  switch (op.kind) {
    case "read":
      return result?.kind !== "read" || result.value === state ? state : undefined;
    case "write":
      return op.value;
    case "cas": {
      const swaps = state === op.from;
      if (result?.kind === "cas" && result.swapped !== swaps) return undefined;
      return swaps ? op.to : state;
    }
    default:
      return op satisfies never;
  }
}

/** 3 and "3" are different values. */
function keyOfValue(value: Value | null): string {
  return JSON.stringify(value);
}

function keyOfRegisterOp(op: RegisterOp): string {
  switch (op.kind) {
    case "read":
      return "read";
    case "write":
      return `write ${keyOfValue(op.value)}`;
    case "cas":
      return `cas ${keyOfValue(op.from)} ${keyOfValue(op.to)}`;
    default:
      return op satisfies never;
  }
}
