package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"

	"tripod.dev/tripod/hub"
	"tripod.dev/tripod/hub/api/backup"
	"tripod.dev/tripod/hub/api/statement"
)

const foundUsage = `tripod-hub %[1]s begins a new incarnation of the hub on this member, which must
not run. It is done in two steps.

  tripod-hub %[1]s --config FILE %[2]s > statement.json
      prints the statement and changes nothing
  tripodctl hub sign --key KEY statement.json > NAME.signature
      by two operators, anywhere
  tripod-hub %[1]s --config FILE %[2]s --statement statement.json \
      --signature NAME.signature --signature NAME.signature
      carries it out; the old data stays beside the new

Flags:
`

// repeated is a flag that may be given several times.
type repeated []string

func (r *repeated) String() string     { return strings.Join(*r, ",") }
func (r *repeated) Set(s string) error { *r = append(*r, s); return nil }

// found is `tripod-hub recover` and `tripod-hub restore`.
func found(ctx context.Context, action string, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("tripod-hub "+action, flag.ContinueOnError)
	path := flags.String("config", "", "this member's configuration file (required)")
	incarnation := flags.Uint64("incarnation", 0, "the incarnation to begin (default the next one; higher than any that an agent has seen)")
	statementFile := flags.String("statement", "", "the statement, as printed and signed")
	var signatureFiles repeated
	flags.Var(&signatureFiles, "signature", "an operator's signature of the statement; give it twice")
	example := "--lost MEMBER,MEMBER"
	var lost, backupFile *string
	if action == statement.Recover {
		lost = flags.String("lost", "", "all other members, which do not run and will be emptied: MEMBER,MEMBER (required)")
	} else {
		example = "--backup BACKUP"
		backupFile = flags.String("backup", "", "the backup to restore (required)")
	}
	flags.Usage = func() {
		fmt.Fprintf(flags.Output(), foundUsage, action, example)
		flags.PrintDefaults()
	}
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *path == "" || flags.NArg() > 0 || lost != nil && *lost == "" || backupFile != nil && *backupFile == "" {
		flags.Usage()
		return errors.New("a required flag is missing")
	}
	config, err := hub.LoadConfig(*path)
	if err != nil {
		return err
	}
	f := hub.Founding{Config: config, Incarnation: *incarnation, Logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))}
	if lost != nil {
		f.Lost = strings.Split(*lost, ",")
	} else {
		f.Backup = *backupFile
	}
	if *statementFile == "" {
		text, err := f.Draft(ctx)
		if err != nil {
			return err
		}
		_, err = out.Write(text)
		return err
	}
	return carry(ctx, f, *statementFile, signatureFiles)
}

func carry(ctx context.Context, f hub.Founding, statementFile string, signatureFiles []string) error {
	text, err := os.ReadFile(statementFile)
	if err != nil {
		return fmt.Errorf("read the statement: %w", err)
	}
	var signatures []statement.Signature
	for _, file := range signatureFiles {
		content, err := os.ReadFile(file)
		if err != nil {
			return fmt.Errorf("read a signature: %w", err)
		}
		var s statement.Signature
		if err := json.Unmarshal(content, &s); err != nil {
			return fmt.Errorf("read the signature %s: %w: it is what `tripodctl hub sign` prints", file, err)
		}
		signatures = append(signatures, s)
	}
	if err := f.Carry(ctx, text, signatures); err != nil {
		return err
	}
	stated, err := statement.Decode(text)
	if err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "incarnation %d is ready: start tripod-hub here, and let other members join with `tripodctl hub add`", stated.Incarnation)
	if f.Backup != "" {
		fmt.Fprint(os.Stderr, "; it is read-only until `tripodctl hub restore approve`")
	}
	fmt.Fprintln(os.Stderr)
	return nil
}

// backUp is `tripod-hub backup`, for a member that does not run.
func backUp(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("tripod-hub backup", flag.ContinueOnError)
	path := flags.String("config", "", "this member's configuration file (required)")
	file := flags.String("backup", "", "the file to write (required)")
	flags.Usage = func() {
		fmt.Fprint(flags.Output(), "tripod-hub backup writes a backup of this member, which must not run.\nFor one that runs, use `tripodctl hub backup FILE`.\n\nFlags:\n")
		flags.PrintDefaults()
	}
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *path == "" || *file == "" || flags.NArg() > 0 {
		flags.Usage()
		return errors.New("a required flag is missing")
	}
	config, err := hub.LoadConfig(*path)
	if err != nil {
		return err
	}
	if err := hub.BackUp(ctx, config, *file); err != nil {
		return err
	}
	facts, err := backup.Verify(*file)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%s: hub %s, incarnation %d, revision %d, %d bytes, sha256 %s\n", *file, facts.Hub, facts.Incarnation, facts.Revision, facts.Bytes, facts.SHA256)
	return nil
}
