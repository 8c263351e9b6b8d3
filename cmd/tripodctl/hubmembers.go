package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	hubv1 "tripod.dev/tripod/proto/hub/v1"
)

// withAdmin runs one call of the hub's gRPC API.
func withAdmin(cmd *cobra.Command, door *connection, do func(context.Context, hubv1.AdminClient) error) error {
	return withAdminFor(cmd, door, rpcTimeout, do)
}

// withAdminFor is withAdmin for a call that may take longer.
func withAdminFor(cmd *cobra.Command, door *connection, limit time.Duration, do func(context.Context, hubv1.AdminClient) error) error {
	admin, done, err := door.admin()
	if err != nil {
		return err
	}
	defer done()
	ctx, cancel := context.WithTimeout(cmd.Context(), limit)
	defer cancel()
	return do(ctx, admin)
}

// changed prints the answer of a change of the members.
func changed(cmd *cobra.Command, what string, answer *hubv1.ChangeMemberResponse, err error) error {
	if err != nil {
		return fmt.Errorf("%s: %w", what, plain(err))
	}
	fmt.Fprintln(cmd.OutOrStdout(), answer.GetMessage())
	return nil
}

func newHubMembersCommand(door *connection) *cobra.Command {
	return &cobra.Command{
		Use:   "members",
		Short: "List the members of the hub, and what those without a vote wait for",
		Long: `List the members of the hub, and what those without a vote wait for.

VERSION is that of the program there, LEVEL the level of the command set that is
in force there, and UNDERSTANDS the highest one that its program understands. The
leader raises the level by itself when every member understands the next; from
then on an older program is refused. See docs/hub-at-night.md, "Upgrading the hub".`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withAdmin(cmd, door, func(ctx context.Context, admin hubv1.AdminClient) error {
				status, err := askStatus(ctx, admin)
				if err != nil {
					return err
				}
				var rows [][]string
				for _, m := range status.GetMembers() {
					vote := "yes"
					if !m.GetVoter() {
						vote = "no"
					}
					answers := "yes"
					if !m.GetReachable() {
						answers = "no"
					}
					rows = append(rows, []string{m.GetName(), m.GetRegion(), m.GetCenter(), m.GetAddress(), vote, answers,
						m.GetVersion(), level(m), understands(m), m.GetWaiting()})
				}
				if err := printTable(cmd.OutOrStdout(), []string{"MEMBER", "REGION", "CENTER", "ADDRESS", "VOTES", "ANSWERS", "VERSION", "LEVEL", "UNDERSTANDS", "WAITS"}, rows); err != nil {
					return err
				}
				fmt.Fprintf(cmd.OutOrStdout(), "\n%s\n", levelInForce(status))
				return nil
			})
		},
	}
}

// level and understands are unknown of a member that does not answer.
func level(m *hubv1.MemberStatus) string {
	if !m.GetReachable() {
		return ""
	}
	return number(m.GetLevel())
}

func understands(m *hubv1.MemberStatus) string {
	if !m.GetReachable() {
		return ""
	}
	return number(m.GetUnderstands())
}

func newHubAddCommand(door *connection) *cobra.Command {
	request := &hubv1.AddMemberRequest{}
	c := &cobra.Command{
		Use:   "add MEMBER --region REGION --center CENTER --address ADDRESS",
		Short: "Let a new member join; it votes when it has caught up",
		Long: `Let a new member join. It gets everything and has no vote until it has caught
up, and until the hub survives as much with it as without: an even number of
voters waits for one more.

Then start tripod-hub there, with the hub token and a file that lists the present
members and itself, without "bootstrap".`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			request.Name = args[0]
			return withAdmin(cmd, door, func(ctx context.Context, admin hubv1.AdminClient) error {
				answer, err := admin.AddMember(ctx, request)
				return changed(cmd, "add the member", answer, err)
			})
		},
	}
	placeFlags(c, request)
	return c
}

func newHubReplaceCommand(door *connection) *cobra.Command {
	request := &hubv1.AddMemberRequest{}
	c := &cobra.Command{
		Use:   "replace OLD NEW --address ADDRESS",
		Short: "Let a new member take the place of another, dead or alive",
		Long: `Let a new member take the place of another, dead or alive. The new one joins
without a vote; when it has caught up it gets the vote and the old one leaves,
without a step between. Region and center are the old one's unless given.`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			request.Replaces, request.Name = args[0], args[1]
			return withAdmin(cmd, door, func(ctx context.Context, admin hubv1.AdminClient) error {
				answer, err := admin.AddMember(ctx, request)
				return changed(cmd, "replace the member", answer, err)
			})
		},
	}
	placeFlags(c, request)
	return c
}

func placeFlags(c *cobra.Command, request *hubv1.AddMemberRequest) {
	c.Flags().StringVar(&request.Region, "region", "", "region of the new member")
	c.Flags().StringVar(&request.Center, "center", "", "center of the new member")
	c.Flags().StringVar(&request.Address, "address", "", "host name or IP of the new member, without a port (required)")
	_ = c.MarkFlagRequired("address") // the flag is there
}

func newHubPromoteCommand(door *connection) *cobra.Command {
	return &cobra.Command{
		Use:   "promote MEMBER",
		Short: "Give a member that has caught up its vote now",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withAdmin(cmd, door, func(ctx context.Context, admin hubv1.AdminClient) error {
				answer, err := admin.PromoteMember(ctx, &hubv1.PromoteMemberRequest{Name: args[0]})
				return changed(cmd, "promote the member", answer, err)
			})
		},
	}
}

func newHubRemoveCommand(door *connection) *cobra.Command {
	request := &hubv1.RemoveMemberRequest{}
	c := &cobra.Command{
		Use:   "remove MEMBER",
		Short: "Take a member out of the hub",
		Long: `Take a member out of the hub. It is refused when the rest would have no majority
that answers, when a member of another center is down, and, without --force, when
the hub would no longer survive the loss of a center.

The certificates that the member had stay valid: stop it and empty its data
folder.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			request.Name = args[0]
			return withAdmin(cmd, door, func(ctx context.Context, admin hubv1.AdminClient) error {
				answer, err := admin.RemoveMember(ctx, request)
				return changed(cmd, "remove the member", answer, err)
			})
		},
	}
	c.Flags().BoolVar(&request.Force, "force", false, "accept that the hub afterwards does not survive the loss of a center")
	return c
}
