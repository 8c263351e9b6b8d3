package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	hubv1 "tripod.dev/tripod/proto/hub/v1"
)

// rewriteTimeout bounds the rewriting of one member's database: gigabytes.
const rewriteTimeout = 10 * time.Minute

func newHubCompactCommand(door *connection) *cobra.Command {
	request := &hubv1.CompactRequest{}
	c := &cobra.Command{
		Use:   "compact",
		Short: "Drop superseded revisions now, to free their space",
		Long: `Drop superseded revisions now. The API servers do it every five minutes by
themselves, and keep those of the last five; do it by hand when the database is
over its quota and something was deleted.

The files do not become smaller by it: what is freed is used again. See
"tripodctl hub defragment".`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withAdmin(cmd, door, func(ctx context.Context, admin hubv1.AdminClient) error {
				answer, err := admin.Compact(ctx, request)
				if err != nil {
					return fmt.Errorf("compact: %w", plain(err))
				}
				fmt.Fprintf(cmd.OutOrStdout(), "superseded revisions up to %d are dropped\n", answer.GetRevision())
				return nil
			})
		},
	}
	c.Flags().Int64Var(&request.Keep, "keep", 0, "how many revisions before the newest one stay")
	return c
}

func newHubDefragmentCommand(door *connection) *cobra.Command {
	var all bool
	c := &cobra.Command{
		Use:   "defragment MEMBER | --all",
		Short: "Rewrite the database file of a member without its holes",
		Long: `Rewrite the database file of a member without its holes, to give space back to
the disk. While it lasts, about a second per GiB in use, that member's clients
wait; the hub goes on. It is refused while another member is missing. A member
that leads hands the leadership over first.

The hub does it by itself, one member after the other, when a file has more
than 45 % and 100 MiB of holes.`,
		Args: func(_ *cobra.Command, args []string) error {
			if all == (len(args) == 1) || len(args) > 1 {
				return errors.New("name one member, or --all")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			admin, done, err := door.admin()
			if err != nil {
				return err
			}
			defer done()
			if all {
				if args, err = followersFirst(cmd.Context(), admin); err != nil {
					return err
				}
			}
			for _, name := range args {
				if err := defragment(cmd, admin, name); err != nil {
					return err
				}
			}
			return nil
		},
	}
	c.Flags().BoolVar(&all, "all", false, "all members, one after the other, the leader last")
	return c
}

func followersFirst(ctx context.Context, admin hubv1.AdminClient) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, rpcTimeout)
	defer cancel()
	status, err := askStatus(ctx, admin)
	if err != nil {
		return nil, err
	}
	return inOrder(status), nil
}

func inOrder(status *hubv1.StatusResponse) []string {
	var names []string
	for _, m := range status.GetMembers() {
		names = append(names, m.GetName())
	}
	if i := slices.Index(names, status.GetLeader()); i >= 0 {
		names = append(slices.Delete(names, i, i+1), status.GetLeader())
	}
	return names
}

func defragment(cmd *cobra.Command, admin hubv1.AdminClient, name string) error {
	ctx, cancel := context.WithTimeout(cmd.Context(), rewriteTimeout)
	defer cancel()
	begun := time.Now()
	if _, err := admin.Defragment(ctx, &hubv1.DefragmentRequest{Name: name}); err != nil {
		return fmt.Errorf("defragment %s: %w", name, plain(err))
	}
	status, err := askStatus(ctx, admin)
	if err != nil {
		return err
	}
	for _, m := range status.GetMembers() {
		if m.GetName() == name {
			fmt.Fprintf(cmd.OutOrStdout(), "%s: %s, %s of them in use, after %s\n", name, humanize.IBytes(uint64(max(0, m.GetDbSizeBytes()))),
				humanize.IBytes(uint64(max(0, m.GetDbUsedBytes()))), time.Since(begun).Round(10*time.Millisecond))
		}
	}
	return nil
}
