package main

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"tripod.dev/tripod/hub/api/backup"
	hubv1 "tripod.dev/tripod/proto/hub/v1"
)

// backupTimeout bounds the making of a backup: gigabytes over a slow line.
const backupTimeout = 30 * time.Minute

func newHubBackupCommand(door *connection) *cobra.Command {
	var local bool
	c := &cobra.Command{
		Use:   "backup FILE",
		Short: "Write a backup of the hub's whole state, and check it",
		Long: `Write a backup of the hub's whole state, from any member, while it runs, and read
it back to check it. Objects in it are encrypted with the keys of this time, which
are in the folder pki of every member: keep a copy of that with it, encrypted.
Without it nothing can be read, and a restored hub is not believed.

Nobody may do it but administrators, or who has the verb "backup" on "members" of
the group tripod.dev.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			facts, err := takeBackup(cmd.Context(), door, args[0], local)
			if err != nil {
				return err
			}
			return printFacts(cmd.OutOrStdout(), args[0], facts, "table")
		},
	}
	c.Flags().BoolVar(&local, "local", false, "take what the member has that answers, also when the hub has no leader")
	c.AddCommand(newHubBackupVerifyCommand())
	return c
}

func newHubBackupVerifyCommand() *cobra.Command {
	var output string
	c := &cobra.Command{
		Use:   "verify FILE",
		Short: "Check a backup: its SHA-256 and every page; say what it is of",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			facts, err := backup.Verify(args[0])
			if err != nil {
				return err
			}
			return printFacts(cmd.OutOrStdout(), args[0], facts, output)
		},
	}
	outputFlag(c, &output, "table", "json")
	return c
}

// takeBackup leaves nothing behind when it fails.
func takeBackup(ctx context.Context, door *connection, path string, local bool) (facts backup.Facts, err error) {
	if _, err := os.Stat(path); err == nil {
		return facts, fmt.Errorf("%s is there already: name a new file", path)
	}
	admin, done, err := door.admin()
	if err != nil {
		return facts, err
	}
	defer done()
	ctx, cancel := context.WithTimeout(ctx, backupTimeout)
	defer cancel()
	stream, err := admin.Backup(ctx, &hubv1.BackupRequest{Local: local})
	if err != nil {
		return facts, fmt.Errorf("ask the hub for a backup: %w", plain(err))
	}
	part := path + ".part"
	defer func() {
		if err != nil {
			_ = os.Remove(part)
		}
	}()
	origin, err := receive(part, stream.Recv)
	if err != nil {
		return facts, err
	}
	if err := backup.Seal(part, backup.Origin{Member: origin.GetMember(), Version: origin.GetVersion(), Made: time.Now().UTC().Truncate(time.Second)}); err != nil {
		return facts, err
	}
	if facts, err = backup.Verify(part); err != nil {
		return facts, err
	}
	if err := os.Rename(part, path); err != nil {
		return facts, fmt.Errorf("put the backup in its place: %w", err)
	}
	return facts, nil
}

// receive writes what the hub sends and compares it with the hub's SHA-256.
func receive(path string, next func() (*hubv1.BackupPart, error)) (origin *hubv1.BackupOrigin, err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("write the backup: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	hash := sha256.New()
	for {
		part, err := next()
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = errors.New("the hub stopped sending before the end")
			}
			return nil, fmt.Errorf("receive the backup: %w", plain(err))
		}
		if part.GetOrigin() != nil {
			origin = part.GetOrigin()
		}
		if want := part.GetSha256(); want != nil {
			if got := hash.Sum(nil); string(got) != string(want) {
				return nil, fmt.Errorf("the backup was altered on its way: SHA-256 %x, want %x: take it again", got, want)
			}
			return origin, nil
		}
		if _, err := io.MultiWriter(f, hash).Write(part.GetData()); err != nil {
			return nil, fmt.Errorf("write the backup: %w", err)
		}
	}
}

func printFacts(out io.Writer, path string, facts backup.Facts, output string) error {
	if output == "json" {
		encoder := json.NewEncoder(out)
		encoder.SetIndent("", "  ")
		return encoder.Encode(facts)
	}
	made := "unknown"
	if !facts.Origin.Made.IsZero() {
		made = facts.Origin.Made.Format(time.RFC3339)
	}
	return printTable(out, []string{"BACKUP", "HUB", "INCARNATION", "REVISION", "SIZE", "MEMBER", "VERSION", "MADE", "KEYS", "SHA256"}, [][]string{{
		path, facts.Hub, fmt.Sprint(facts.Incarnation), fmt.Sprint(facts.Revision), humanize.IBytes(uint64(facts.Bytes)),
		facts.Origin.Member, facts.Origin.Version, made, strings.Join(facts.Keys, ","), facts.SHA256[:16],
	}})
}
