package hub

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"tripod.dev/tripod/hub/api/v1alpha1"
	"tripod.dev/tripod/hub/identity"
	"tripod.dev/tripod/hub/rpc"
	hubv1 "tripod.dev/tripod/proto/hub/v1"
)

const (
	// memberPatience bounds how long a stage may take to come into force on the
	// members that run.
	memberPatience = 20 * time.Second
	// askInterval is how often they are asked meanwhile.
	askInterval = 300 * time.Millisecond
)

// authorityRotation replaces the hub's CA. Its stages are committed, and what the next
// one waits for is asked for anew each time; so whoever leads goes on where another
// one stopped. See identity/DESIGN.md.
type authorityRotation struct {
	member *Member
	acting sync.Mutex
}

// Certificates implements rpc.Authority.
func (r *authorityRotation) Certificates() []byte { return r.member.identity.RootsPEM() }

// Standing implements rpc.Authority.
func (r *authorityRotation) Standing(ctx context.Context) *hubv1.AuthorityStandingResponse {
	m := r.member
	plan := m.identity.Plan()
	answer := &hubv1.AuthorityStandingResponse{
		Generation: plan.Generation, HasNext: plan.Next != nil && m.identity.Holds(plan.Next), Agents: m.progress.list(),
		Shows: []string{m.identity.IssuerOf(m.identity.Certificate().Leaf)},
	}
	if api := r.shownBy(ctx, net.JoinHostPort(m.config.self().Address, APIPort)); !slices.Contains(answer.GetShows(), api) {
		answer.Shows = append(answer.Shows, api)
	}
	for _, old := range m.identity.Old() {
		answer.Old = append(answer.Old, &hubv1.OldCertificate{Name: old.Name, Serial: old.Serial, Shown: old.Shown.Unix()})
	}
	return answer
}

// shownBy is the CA of the certificate that one of this member's own ports shows,
// which upstream's server reads from a file; or why that is not known.
func (r *authorityRotation) shownBy(ctx context.Context, address string) string {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	// Only looked at: nothing is said on the connection.
	conn, err := (&tls.Dialer{Config: &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: true}}).DialContext(ctx, "tcp", address)
	if err != nil {
		return err.Error()
	}
	defer func() { _ = conn.Close() }()
	return r.member.identity.IssuerOf(conn.(*tls.Conn).ConnectionState().PeerCertificates[0])
}

// Rotate implements rpc.Authority.
func (r *authorityRotation) Rotate(ctx context.Context, request *hubv1.RotateAuthorityRequest, ask rpc.AskStanding) (*hubv1.RotateAuthorityResponse, error) {
	if !r.acting.TryLock() {
		return nil, status.Error(codes.FailedPrecondition, "a rotation is under way: wait for it")
	}
	defer r.acting.Unlock()
	act := request.GetBegin() || request.GetFinish()
	begun := false
	for {
		if err := r.member.store.Linearize(ctx); err != nil {
			return nil, status.Error(codes.Unavailable, err.Error())
		}
		plan, err := r.plan()
		if err != nil {
			return nil, status.Error(codes.Internal, err.Error())
		}
		var waits []string
		var lost bool
		var next identity.Plan
		fresh := plan.Stage == identity.StageSettled && request.GetBegin() && !begun
		if !fresh {
			waits, lost = r.await(ctx, plan, act, request, ask)
		}
		switch {
		case fresh:
			next, err = r.begin(plan)
		case plan.Stage == identity.StageTrust && request.GetBegin() && !begun && lost:
			next, err = r.begin(plan)
		case plan.Stage == identity.StageSettled, len(waits) > 0, !act,
			plan.Stage == identity.StageIssue && !request.GetFinish():
			return r.answer(plan, waits), nil
		default:
			next = plan.Advance()
		}
		if err != nil {
			return nil, status.Error(codes.Internal, err.Error())
		}
		if err := r.commit(ctx, plan, next); err != nil {
			return nil, status.Errorf(codes.Unavailable, "%v; the command can be repeated", err)
		}
		begun = true
	}
}

// begin makes the CA that is to follow.
func (r *authorityRotation) begin(plan identity.Plan) (identity.Plan, error) {
	ca, err := r.member.identity.Candidate()
	if err != nil {
		return plan, err
	}
	return plan.Begin(ca)
}

// plan is the committed one; in a hub that never changed its CA, the member's own.
func (r *authorityRotation) plan() (identity.Plan, error) {
	record, err := r.member.store.Authorities().Applied()
	if err != nil {
		return identity.Plan{}, err
	}
	if record == nil {
		if own := r.member.identity.Plan(); own.Generation == 0 {
			return own, nil
		}
		return identity.Plan{}, errors.New("the hub has not committed yet what its members know of its CAs: try again")
	}
	return planOf(record)
}

func (r *authorityRotation) commit(ctx context.Context, read, next identity.Plan) error {
	before := recordOf(read)
	if read.Generation == 0 {
		before = nil
	}
	if err := r.member.store.Authorities().Commit(ctx, before, recordOf(next)); err != nil {
		return err
	}
	r.member.logger.Info("the hub's CA is rotated", "stage", next.Stage.String(), "generation", next.Generation)
	return nil
}

func (r *authorityRotation) answer(plan identity.Plan, waits []string) *hubv1.RotateAuthorityResponse {
	answer := &hubv1.RotateAuthorityResponse{Stage: plan.Stage.String(), Present: identity.Fingerprint(plan.Present), Waits: waits}
	if plan.Next != nil {
		answer.Next = identity.Fingerprint(plan.Next)
	}
	return answer
}

// await asks until nothing is waited for, or the members that run have had time; lost
// says that all members have answered and nobody has the key of the next CA.
func (r *authorityRotation) await(ctx context.Context, plan identity.Plan, act bool, request *hubv1.RotateAuthorityRequest, ask rpc.AskStanding) (waits []string, lost bool) {
	limit := time.NewTimer(memberPatience)
	defer limit.Stop()
	for {
		standings, silent := r.ask(ctx, ask)
		gate := gate{plan: plan, standings: standings, silent: silent, without: request.GetWithout(), clusters: r.clusters(ctx)}
		members := gate.members()
		waits, lost = slices.Concat(members, gate.others()), gate.lost()
		if len(members) == 0 || !act {
			return waits, lost
		}
		pause := time.NewTimer(askInterval)
		select {
		case <-pause.C:
		case <-limit.C:
			pause.Stop()
			return waits, lost
		case <-ctx.Done():
			pause.Stop()
			return append(waits, ctx.Err().Error()), false
		}
	}
}

// ask asks all members at once how far they have come.
func (r *authorityRotation) ask(ctx context.Context, ask rpc.AskStanding) (standings map[string]*hubv1.AuthorityStandingResponse, silent map[string]string) {
	standings, silent = map[string]*hubv1.AuthorityStandingResponse{}, map[string]string{}
	membership := r.member.store.Membership()
	var mu sync.Mutex
	var asking sync.WaitGroup
	for _, info := range membership.List() {
		asking.Go(func() {
			var standing *hubv1.AuthorityStandingResponse
			var err error
			if info.Name == membership.Self() {
				standing = r.Standing(ctx)
			} else {
				standing, err = ask(ctx, info.Name)
			}
			mu.Lock()
			defer mu.Unlock()
			switch {
			case status.Code(err) == codes.Unimplemented:
				silent[info.Name] = "runs a program that cannot change its CA: upgrade it"
			case err != nil:
				silent[info.Name] = "does not answer: bring it back, or remove it (tripodctl hub remove)"
			default:
				standings[info.Name] = standing
			}
		})
	}
	asking.Wait()
	return standings, silent
}

// clusters are those that have joined and are accepted.
func (r *authorityRotation) clusters(ctx context.Context) (names []string) {
	clusters, _, err := r.member.senses.committed.Clusters(ctx)
	if err != nil {
		return []string{fmt.Sprintf("(the clusters cannot be read: %v)", err)}
	}
	for _, c := range clusters {
		if c.HasJoined() && c.Spec.Admission == v1alpha1.AdmissionAccepted {
			names = append(names, c.Name)
		}
	}
	slices.Sort(names)
	return names
}
