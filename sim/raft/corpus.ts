/** Seeds that once found something, each with what it was. They stay what they are as long as the simulator draws as it does. */

export interface Found {
  readonly seed: number;
  readonly what: string;
}

export const corpus: readonly Found[] = [];
