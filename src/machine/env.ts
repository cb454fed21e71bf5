/** The lines of `shoal machine env` for each shell; the caller's shell evaluates them. */
import { failure } from "../lib/errors.ts";

export type EnvVariables = Readonly<Record<string, string>>;

interface Dialect {
  set(name: string, value: string): string;
  unset(name: string): string;
  /** Begins a comment. */
  readonly comment: string;
  /** How the user would run `command` so that its output takes effect. */
  hint(command: string): string;
}

const posix: Dialect = {
  set: (name, value) => `export ${name}="${value}"`,
  unset: (name) => `unset ${name}`,
  comment: "#",
  hint: (command) => `eval $(${command})`,
};
const dialects: Readonly<Record<string, Dialect>> = {
  sh: posix,
  bash: posix,
  zsh: posix,
  fish: {
    set: (name, value) => `set -gx ${name} "${value}";`,
    unset: (name) => `set -e ${name};`,
    comment: "#",
    hint: (command) => `${command} | source`,
  },
  powershell: {
    set: (name, value) => `$Env:${name} = "${value}"`,
    unset: (name) => `Remove-Item Env:\\${name}`,
    comment: "#",
    hint: (command) => `& ${command} | Invoke-Expression`,
  },
  cmd: {
    set: (name, value) => `SET ${name}=${value}`,
    unset: (name) => `SET ${name}=`,
    comment: "REM",
    hint: (command) => `@FOR /f "tokens=*" %i IN ('${command}') DO @%i`,
  },
  tcsh: {
    set: (name, value) => `setenv ${name} "${value}";`,
    unset: (name) => `unsetenv ${name};`,
    comment: ":",
    hint: (command) => `eval \`${command}\``,
  },
  emacs: {
    set: (name, value) => `(setenv "${name}" "${value}")`,
    unset: (name) => `(setenv "${name}" nil)`,
    comment: ";;",
    hint: (command) =>
      `(with-temp-buffer (shell-command "${command}" (current-buffer)) (eval-buffer))`,
  },
};

/** Name of a dialect from `--shell`, else from the SHELL variable; sh when neither says. Throws `invalid` for an unknown `--shell`. */
export function shellName(option: string | null, shellVariable: string | undefined): string {
  if (option !== null) {
    if (!(option in dialects)) {
      throw failure(
        "invalid",
        `unknown shell ${JSON.stringify(option)}: known are ${Object.keys(dialects).join(", ")}`,
      );
    }
    return option;
  }
  const base = (shellVariable ?? "").split("/").at(-1) ?? "";
  return base === "csh" ? "tcsh" : base in dialects ? base : "sh";
}

/** Text that sets `variables`, then comments that say how to use it (`command` is what the user typed). */
export function envText(shell: string, variables: EnvVariables, command: string): string {
  return text(shell, command, (dialect) =>
    Object.entries(variables).map(([name, value]) => dialect.set(name, value)),
  );
}

/** Text that unsets the variables. */
export function unsetText(shell: string, names: readonly string[], command: string): string {
  return text(shell, command, (dialect) => names.map((name) => dialect.unset(name)));
}

function text(shell: string, command: string, lines: (dialect: Dialect) => string[]): string {
  const dialect = dialects[shell] ?? posix;
  return [
    ...lines(dialect),
    `${dialect.comment} Run this command to configure your shell: `,
    `${dialect.comment} ${dialect.hint(command)}`,
    "",
  ].join("\n");
}
