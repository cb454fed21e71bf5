/** Runs a transcript of etcd's interaction tests against our core, and compares at one of three levels. */
import { type Failure, type Outcome, parseTranscript } from "../grammar.ts";
import { World } from "./world.ts";

/**
 * 1: the same lines in any order within a command; 2: the same lines in the same order. Both leave out etcd's free-text
 * log. 3: byte for byte, with it.
 */
export type Level = 1 | 2 | 3;

/** What became of each command of the transcript `text`. A command that throws fails with its error as output. */
export function runInteraction(text: string, level: Level): Outcome {
  const commands = parseTranscript(text);
  const world = new World(commands);
  const failed: Failure[] = [];
  for (const command of commands) {
    const actual = attempt(() => world.run(command));
    if (reduced(actual, level) !== reduced(command.expected, level)) {
      failed.push({ line: command.line, expected: command.expected, actual });
    }
  }
  return { commands: commands.length, failed };
}

function attempt(run: () => string): string {
  try {
    return run();
  } catch (error) {
    return `it threw: ${error instanceof Error ? error.message : String(error)}`;
  }
}

function reduced(output: string, level: Level): string {
  const lines = output.replace(/\n+$/, "").split("\n");
  if (level === 3) return lines.join("\n");
  const kept = lines.filter((line) => !LOG_LINE.test(line) && line !== "ok");
  return (level === 2 ? kept : kept.map((line) => line.trim()).sort()).join("\n");
}

const LOG_LINE = /^\s*(DEBUG|INFO|WARN|ERROR|FATAL) /;
