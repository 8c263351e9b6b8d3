package store

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"

	raftlogv1 "tripod.dev/tripod/proto/raftlog/v1"
)

// peers calls MemberService of the other members.
type peers struct {
	tls     *tls.Config
	roots   func() *x509.CertPool
	dial    func(ctx context.Context, address string) (net.Conn, error)
	address func(name string) (string, bool)
	limit   int

	mu sync.Mutex
	// conns by name, and where each leads to.
	conns     map[string]*grpc.ClientConn
	addresses map[string]string
	// abandoned connections end when their timer fires.
	abandoned map[*grpc.ClientConn]*time.Timer
}

// abandonAfter is how long calls to a leader that was replaced may still take. A
// machine that lost its power does not say that it will never answer.
const abandonAfter = 300 * time.Millisecond

func newPeers(cfg Config, book *book) *peers {
	return &peers{
		tls: cfg.TLS, roots: cfg.roots(), dial: cfg.Dial, limit: cfg.MaxRequestBytes,
		conns: map[string]*grpc.ClientConn{}, addresses: map[string]string{}, abandoned: map[*grpc.ClientConn]*time.Timer{},
		address: func(name string) (string, bool) {
			m, ok := book.lookup(name)
			return m.PeerAddress, ok
		},
	}
}

func (p *peers) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, conn := range p.conns {
		_ = conn.Close()
	}
	for conn, timer := range p.abandoned {
		timer.Stop()
		_ = conn.Close()
	}
}

// abandon ends the calls to a leader that has been replaced: reads are asked of
// the new one, and the fate of writes is unknown.
func (p *peers) abandon(name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	conn, ok := p.conns[name]
	if !ok {
		return
	}
	delete(p.conns, name)
	p.abandoned[conn] = time.AfterFunc(abandonAfter, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.abandoned, conn)
		_ = conn.Close()
	})
}

func (p *peers) conn(name string) (*grpc.ClientConn, error) {
	address, known := p.address(name)
	p.mu.Lock()
	defer p.mu.Unlock()
	conn, ok := p.conns[name]
	if ok && (!known || p.addresses[name] == address) {
		return conn, nil
	}
	if !known {
		return nil, fmt.Errorf("store: member %q is not in the address book: add it with its addresses", name)
	}
	if ok {
		// A member of that name has joined at another address.
		_ = conn.Close()
		delete(p.conns, name)
	}
	conn, err := grpc.NewClient("passthrough:///"+address,
		grpc.WithTransportCredentials(credentials.NewTLS(clientTLS(p.tls, p.roots, name))),
		grpc.WithContextDialer(p.dial),
		grpc.WithDefaultCallOptions(grpc.MaxCallSendMsgSize(2*p.limit), grpc.MaxCallRecvMsgSize(maxResponseBytes)),
		grpc.WithStaticStreamWindowSize(StreamWindow),
		grpc.WithStaticConnWindowSize(ConnectionWindow),
		grpc.WithConnectParams(reconnect),
		grpc.WithKeepaliveParams(keepaliveParams),
	)
	if err != nil {
		return nil, fmt.Errorf("connect to member %q: %w", name, err)
	}
	p.conns[name], p.addresses[name] = conn, address
	return conn, nil
}

// ready returns a connection that is up. Until then nothing has been sent.
func (p *peers) ready(ctx context.Context, name string) (*grpc.ClientConn, error) {
	conn, err := p.conn(name)
	if err != nil {
		return nil, err
	}
	for {
		state := conn.GetState()
		switch state {
		case connectivity.Ready:
			return conn, nil
		case connectivity.TransientFailure, connectivity.Shutdown:
			return nil, ErrNotLeader
		case connectivity.Idle:
			conn.Connect()
		}
		if !conn.WaitForStateChange(ctx, state) {
			return nil, ended(ctx)
		}
	}
}

func (p *peers) propose(ctx context.Context, leader string, data []byte) (result *Result, proposed bool, err error) {
	conn, err := p.ready(ctx, leader)
	if err != nil {
		return nil, false, err
	}
	resp, err := raftlogv1.NewMemberServiceClient(conn).Propose(ctx, &raftlogv1.ProposeRequest{Command: data})
	if err != nil {
		if ctx.Err() != nil {
			return nil, true, ended(ctx)
		}
		return nil, true, ErrOutcomeUnknown
	}
	failure := status.ErrorProto(&statusProto{Code: int32(resp.GetErrorCode()), Message: resp.GetErrorMessage()})
	switch resp.GetOutcome() {
	case raftlogv1.Outcome_OUTCOME_APPLIED:
		result, err := decodeResult(data, resp, failure)
		return result, true, err
	case raftlogv1.Outcome_OUTCOME_NOT_PROPOSED:
		if codes.Code(resp.GetErrorCode()) == codes.ResourceExhausted {
			return nil, false, failure
		}
		return nil, false, ErrNotLeader
	default:
		return nil, true, ErrOutcomeUnknown
	}
}

// decodeResult reads the leader's answer; the response type follows from the
// command.
func decodeResult(data []byte, resp *raftlogv1.ProposeResponse, failure error) (*Result, error) {
	result := &Result{Index: resp.GetIndex(), Term: resp.GetTerm(), Err: failure}
	if failure != nil || len(resp.GetResponse()) == 0 {
		return result, nil
	}
	var command raftlogv1.Command
	if err := proto.Unmarshal(data, &command); err != nil {
		return nil, fmt.Errorf("decode own command: %w", err)
	}
	switch command.GetOp().(type) {
	case *raftlogv1.Command_Put:
		result.Response = &pb.PutResponse{}
	case *raftlogv1.Command_DeleteRange:
		result.Response = &pb.DeleteRangeResponse{}
	case *raftlogv1.Command_Txn:
		result.Response = &pb.TxnResponse{}
	case *raftlogv1.Command_Compact:
		result.Response = &pb.CompactionResponse{}
	case *raftlogv1.Command_LeaseGrant:
		result.Response = &pb.LeaseGrantResponse{}
	case *raftlogv1.Command_LeaseRevoke:
		result.Response = &pb.LeaseRevokeResponse{}
	case *raftlogv1.Command_LeaseCheckpoint:
		result.Response = &pb.LeaseCheckpointResponse{}
	case *raftlogv1.Command_Alarm:
		result.Response = &pb.AlarmResponse{}
	default:
		return result, nil
	}
	if err := result.Response.Unmarshal(resp.GetResponse()); err != nil {
		return nil, fmt.Errorf("decode the leader's response: %w", err)
	}
	return result, nil
}

func (p *peers) readIndex(ctx context.Context, leader string, mine *raftlogv1.Allegiance) (uint64, bool) {
	conn, err := p.ready(ctx, leader)
	if err != nil {
		return 0, false
	}
	resp, err := raftlogv1.NewMemberServiceClient(conn).ReadIndex(ctx, &raftlogv1.ReadIndexRequest{Allegiance: mine})
	if err != nil || !resp.GetConfirmed() {
		return 0, false
	}
	return resp.GetIndex(), true
}

// standing asks a member how far it is.
func (p *peers) standing(ctx context.Context, name string) (*raftlogv1.StandingResponse, error) {
	conn, err := p.conn(name)
	if err != nil {
		return nil, err
	}
	return raftlogv1.NewMemberServiceClient(conn).Standing(ctx, &raftlogv1.StandingRequest{})
}
