package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	clientv3 "go.etcd.io/etcd/client/v3"

	"tripod.dev/tripod/test/robustness/fault"
	"tripod.dev/tripod/test/storefleet"
)

func damageCommand() *cobra.Command {
	s := settings{members: 3}
	cases := 60
	c := &cobra.Command{
		Use: "damage", Short: "Alter a member's files: it must refuse to start, or have everything", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := s.complete()
			if err != nil {
				return err
			}
			return damage(cmd.Context(), s, cases, cmd.OutOrStdout())
		},
	}
	c.Flags().StringVar(&s.program, "member", s.program, "the program of a member; default: storemember beside this program")
	c.Flags().StringVar(&s.folder, "folder", s.folder, "where members keep their data; default: a temporary folder, which stays if anything is wrong")
	c.Flags().IntVar(&cases, "cases", cases, "how often something is altered")
	c.Flags().Uint64Var(&s.seed, "seed", s.seed, "the seed, from which the damage follows; 0: by chance")
	return c
}

// bench is a fleet, one member of which is damaged again and again.
type bench struct {
	*stage
	victim *storefleet.Member
	client *clientv3.Client
	// want is what every member must have.
	want *clientv3.GetResponse
	// whole is a copy of the victim's data before any damage.
	whole string
}

// damage runs cases and prints what came of them.
func damage(ctx context.Context, s settings, cases int, out io.Writer) error {
	random := rand.New(rand.NewPCG(s.seed, 0))
	b, err := newBench(ctx, s, random)
	if err != nil {
		return err
	}
	counts := map[string]int{}
	var bad []string
	for range cases {
		what, verdict, err := b.try(ctx, random)
		if ctx.Err() != nil {
			break
		}
		if err != nil {
			bad = append(bad, fmt.Sprintf("%s: %v", what, err))
			verdict = "WRONG"
		}
		kind, _, _ := strings.Cut(what, " at ")
		counts[filepath.Base(kind)+"\t"+what[strings.LastIndex(what, ":")+2:]+"\t"+verdict]++
	}
	err = b.close(ctx, len(bad) > 0)
	w := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	fmt.Fprintf(w, "seed %d\nfile\tdamage\tthe member\ttimes\n", s.seed)
	for _, row := range sortedKeys(counts) {
		fmt.Fprintf(w, "%s\t%d\n", row, counts[row])
	}
	err = errors.Join(err, w.Flush())
	if len(bad) > 0 {
		return fmt.Errorf("%d of %d cases are wrong, see %s:\n%s", len(bad), cases, b.folder, strings.Join(bad, "\n"))
	}
	return err
}

func newBench(ctx context.Context, s settings, random *rand.Rand) (*bench, error) {
	p := newPlan(s.seed, s.members, 0, false)
	p.disks = false
	st, err := open(ctx, s.program, s.folder, p)
	if err != nil {
		return nil, err
	}
	b := &bench{stage: st, whole: filepath.Join(s.folder, "whole")}
	if err := b.prepare(ctx, random); err != nil {
		return nil, errors.Join(err, st.close(ctx, true))
	}
	return b, nil
}

// prepare writes what the log, the database and snapshots are to hold, and kills a
// follower right after.
func (b *bench) prepare(ctx context.Context, random *rand.Rand) error {
	leader, err := b.fleet.AwaitLeader(ctx)
	if err != nil {
		return err
	}
	if b.client, err = b.fleet.Client(leader); err != nil {
		return err
	}
	for i := range 600 {
		r, err := b.client.Put(ctx, fmt.Sprintf("k%03d", random.IntN(200)), fmt.Sprintf("%d-%x", i, random.Uint64()))
		if err != nil {
			return fmt.Errorf("write: %w", err)
		}
		if i == 300 {
			if _, err := b.client.Compact(ctx, r.Header.Revision); err != nil {
				return fmt.Errorf("compact: %w", err)
			}
		}
	}
	if b.want, err = b.client.Get(ctx, "", clientv3.WithPrefix()); err != nil {
		return fmt.Errorf("read: %w", err)
	}
	i := slices.IndexFunc(b.fleet.Members, func(m *storefleet.Member) bool { return m != leader })
	b.victim = b.fleet.Members[i]
	if err := b.awaitSnapshot(ctx); err != nil {
		return err
	}
	if err := b.victim.Kill(); err != nil {
		return err
	}
	return os.CopyFS(b.whole, os.DirFS(b.data()))
}

func (b *bench) awaitSnapshot(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, settling)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		found, err := filepath.Glob(filepath.Join(b.data(), "raft", "snapshots", "*", "meta.sum"))
		if err != nil || len(found) > 0 {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s takes no snapshot within %s", b.victim.Name(), settling)
		case <-tick.C:
		}
	}
}

func (b *bench) data() string { return filepath.Join(b.victim.Folder, "data") }

// try damages the victim, starts it and says what it did. An error is what it must
// not do.
func (b *bench) try(ctx context.Context, random *rand.Rand) (what, verdict string, err error) {
	log := filepath.Join(b.victim.Folder, "log")
	err = errors.Join(b.victim.Kill(), os.RemoveAll(b.data()), os.RemoveAll(log), os.CopyFS(b.data(), os.DirFS(b.whole)))
	if err != nil {
		return "nothing at 0: nothing", "", err
	}
	if what, err = fault.Damage(b.data(), random); err != nil {
		return "nothing at 0: nothing", "", err
	}
	if err := b.victim.Start(); err != nil {
		return what, "", err
	}
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	served, err := b.served(ctx)
	switch {
	case err != nil:
		return what, "", err
	case served:
		return what, "had everything", nil
	}
	said, err := os.ReadFile(log)
	if err != nil {
		return what, "", fmt.Errorf("read its log: %w", err)
	}
	if !bytes.Contains(said, []byte(b.data())) || !bytes.Contains(said, []byte("remove this member's data directory")) && !bytes.Contains(said, []byte("belongs to member")) {
		return what, "", fmt.Errorf("it ended without naming the folder and the remedy: %s", said)
	}
	return what, "refused and said why", nil
}

// served waits until the victim answers, and is false if it ends instead. What it
// answers must be what was written.
func (b *bench) served(ctx context.Context) (bool, error) {
	c, err := b.fleet.Client(b.victim)
	if err != nil {
		return false, err
	}
	defer func() { _ = c.Close() }()
	for ctx.Err() == nil {
		attempt, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
		got, err := c.Get(attempt, "", clientv3.WithPrefix())
		cancel()
		if err != nil {
			if !b.victim.Running() {
				return false, nil
			}
			continue
		}
		if len(got.Kvs) != len(b.want.Kvs) {
			return true, fmt.Errorf("it has %d keys, want %d", len(got.Kvs), len(b.want.Kvs))
		}
		for i, kv := range got.Kvs {
			if kv.String() != b.want.Kvs[i].String() {
				return true, fmt.Errorf("it has %s, want %s", kv, b.want.Kvs[i])
			}
		}
		return true, nil
	}
	return false, errors.New("it neither serves nor ends")
}
