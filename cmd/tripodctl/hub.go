package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
	"k8s.io/client-go/rest"

	"tripod.dev/tripod/hub/api/endpoint"
	hubv1 "tripod.dev/tripod/proto/hub/v1"
)

// rpcTimeout bounds one call to the hub's gRPC API.
const rpcTimeout = 10 * time.Second

func newHubCommand(door *connection) *cobra.Command {
	c := &cobra.Command{Use: "hub", Short: "Look at and operate the hub itself"}
	c.AddCommand(
		newHubStatusCommand(door), newHubTransferCommand(door),
		newHubMembersCommand(door), newHubAddCommand(door), newHubReplaceCommand(door), newHubPromoteCommand(door), newHubRemoveCommand(door),
		newHubCompactCommand(door), newHubDefragmentCommand(door), newHubEncryptionCommand(door),
		newHubBackupCommand(door), newHubRestoreCommand(door), newHubOperatorCommand(door), newHubSignCommand(),
		newHubCertificatesCommand(door),
	)
	return c
}

func newHubStatusCommand(door *connection) *cobra.Command {
	var output string
	c := &cobra.Command{
		Use:   "status",
		Short: "Show every hub member: reachable, leader, applied index, revision, size",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withAdmin(cmd, door, func(ctx context.Context, admin hubv1.AdminClient) error {
				status, err := askStatus(ctx, admin)
				if err != nil {
					return err
				}
				if output == "json" {
					return printJSON(cmd.OutOrStdout(), status)
				}
				return printHubStatus(cmd, status)
			})
		},
	}
	outputFlag(c, &output, "table", "json")
	return c
}

// askStatus asks again when the member that answered died meanwhile: another
// one will be dialled.
func askStatus(ctx context.Context, admin hubv1.AdminClient) (*hubv1.StatusResponse, error) {
	var answer *hubv1.StatusResponse
	var err error
	for range 2 {
		answer, err = admin.Status(ctx, &hubv1.StatusRequest{}, grpc.WaitForReady(err != nil))
		if status.Code(err) != codes.Unavailable {
			break
		}
	}
	if err != nil {
		return nil, fmt.Errorf("ask the hub for its status: %w", plain(err))
	}
	return answer, nil
}

// askMembers asks the hub for its members, within rpcTimeout.
func (c *connection) askMembers(ctx context.Context) ([]*hubv1.MemberStatus, error) {
	admin, done, err := c.admin()
	if err != nil {
		return nil, err
	}
	defer done()
	ctx, cancel := context.WithTimeout(ctx, rpcTimeout)
	defer cancel()
	status, err := askStatus(ctx, admin)
	if err != nil {
		return nil, err
	}
	return status.GetMembers(), nil
}

func printHubStatus(cmd *cobra.Command, status *hubv1.StatusResponse) error {
	leader := status.GetLeader()
	if leader == "" {
		leader = "none"
	}
	fmt.Fprintf(cmd.OutOrStdout(), "leader %s, term %d, incarnation %d, %s, answered by %s\n\n",
		leader, status.GetTerm(), status.GetIncarnation(), levelInForce(status), status.GetMember())
	if status.GetSealed() {
		fmt.Fprint(cmd.OutOrStdout(), "restored from a backup and read-only: see `tripodctl hub restore diff`\n\n")
	}
	well := status.GetLeader() != "" && !status.GetSealed()
	var rows [][]string
	for _, m := range status.GetMembers() {
		role := "follower"
		switch {
		case !m.GetReachable():
			role, well = "unreachable", false
		case m.GetLeader():
			role = "leader"
		case !m.GetVoter():
			role = "non-voter"
		}
		well = well && len(m.GetProblems()) == 0
		rows = append(rows, []string{
			m.GetName(), m.GetRegion(), m.GetCenter(), m.GetAddress(), role,
			fmt.Sprint(m.GetAppliedIndex()), fmt.Sprint(m.GetRevision()),
			humanize.IBytes(uint64(max(0, m.GetDbSizeBytes()))), m.GetVersion(), problem(m),
		})
	}
	if err := printTable(cmd.OutOrStdout(), []string{"MEMBER", "REGION", "CENTER", "ADDRESS", "ROLE", "APPLIED", "REVISION", "SIZE", "VERSION", "PROBLEM"}, rows); err != nil {
		return err
	}
	if !well {
		return errNotReady
	}
	return nil
}

// levelInForce is the level of the command set, and why it is not higher.
func levelInForce(status *hubv1.StatusResponse) string {
	text := "level " + number(status.GetLevel())
	if waits := status.GetLevelWaits(); waits != "" {
		text += fmt.Sprintf(" (%d waits: %s)", status.GetLevel()+1, waits)
	}
	return text
}

// number is what a member says, which an older one does not.
func number(n uint32) string {
	if n == 0 {
		return "?"
	}
	return fmt.Sprint(n)
}

// problem is why a member does not answer, or what is wrong with one that does.
func problem(m *hubv1.MemberStatus) string {
	if m.GetError() != "" {
		return shortened(m.GetError())
	}
	if m.GetWaiting() != "" {
		return "no vote yet: " + m.GetWaiting()
	}
	return strings.Join(m.GetProblems(), "; ")
}

// shortened is the part of a dialling error that says something.
func shortened(err string) string {
	if i := strings.LastIndex(err, "dial tcp "); i >= 0 {
		err = strings.TrimSuffix(err[i+len("dial tcp "):], `"`)
	}
	return err
}

func newHubTransferCommand(door *connection) *cobra.Command {
	return &cobra.Command{
		Use:   "transfer [MEMBER]",
		Short: "Hand the leadership to another member",
		Long: `Hand the leadership to another member, before the leader's machine is taken
down. Without a name, the member that is furthest takes it.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			request := &hubv1.TransferLeadershipRequest{}
			if len(args) == 1 {
				request.To = args[0]
			}
			return withAdmin(cmd, door, func(ctx context.Context, admin hubv1.AdminClient) error {
				answer, err := admin.TransferLeadership(ctx, request)
				if err != nil {
					return fmt.Errorf("hand the leadership over: %w", plain(err))
				}
				fmt.Fprintf(cmd.OutOrStdout(), "%s leads now\n", answer.GetLeader())
				return nil
			})
		},
	}
}

// admin opens the hub's gRPC API at the first member that answers.
func (c *connection) admin() (hubv1.AdminClient, func(), error) {
	config, err := c.restConfig()
	if err != nil {
		return nil, nil, err
	}
	tlsConfig, err := rest.TLSConfigFor(config)
	if err != nil {
		return nil, nil, fmt.Errorf("read the credentials: %w", err)
	}
	if tlsConfig == nil {
		return nil, nil, errors.New("the kubeconfig has no certificate authority: the hub speaks TLS only")
	}
	tlsConfig.ServerName = endpoint.ServerName
	tlsConfig.NextProtos = []string{"h2"}
	var members []string
	for _, m := range c.members(config) {
		host, _, err := net.SplitHostPort(m)
		if err != nil {
			return nil, nil, fmt.Errorf("read the member %q: %w", m, err)
		}
		members = append(members, net.JoinHostPort(host, endpoint.RPCPort))
	}
	dial := endpoint.Dialer(members)
	conn, err := grpc.NewClient("passthrough:///hub",
		grpc.WithTransportCredentials(credentials.NewTLS(tlsConfig)), grpc.WithPerRPCCredentials(bearer{config}),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) { return dial(ctx, "tcp", address) }))
	if err != nil {
		return nil, nil, fmt.Errorf("open the hub's gRPC API: %w", err)
	}
	return hubv1.NewAdminClient(conn), func() { _ = conn.Close() }, nil
}
