/** Entry point of script/check-history. */
import { checkHistories } from "./command.ts";

process.exitCode = checkHistories(process.argv.slice(2));
