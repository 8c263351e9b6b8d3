package hub

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"time"

	"tripod.dev/tripod/hub/identity"
	agentv1 "tripod.dev/tripod/proto/agent/v1"
	raftlogv1 "tripod.dev/tripod/proto/raftlog/v1"
)

// followInterval is how often a member looks whether the hub's CAs have changed.
const followInterval = 500 * time.Millisecond

// followAuthorities takes on what the hub has committed about its CAs.
func (m *Member) followAuthorities(ctx context.Context) error {
	ticker := time.NewTicker(followInterval)
	defer ticker.Stop()
	said := ""
	for {
		err := m.followOnce(ctx)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err == nil:
			said = ""
		case err.Error() != said:
			said = err.Error()
			m.logger.Warn("the member has not taken on the hub's CAs yet", "member", m.config.Name, "error", err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
	}
}

func (m *Member) followOnce(ctx context.Context) error {
	record, err := m.store.Authorities().Applied()
	if err != nil {
		return err
	}
	own := m.identity.Plan()
	switch {
	case record.GetGeneration() < own.Generation:
		// Restored from a backup that is older than the folder pki: what the members
		// issue and trust cannot go back.
		if m.store.Incarnation() == 0 || m.store.Leadership().Leader != m.config.Name {
			return nil
		}
		return m.store.Authorities().Commit(ctx, record, recordOf(own))
	case record.GetGeneration() == own.Generation && m.identity.Complete():
		return nil
	}
	plan, err := planOf(record)
	if err != nil {
		return err
	}
	return m.identity.Follow(ctx, plan, m.identityPeers())
}

// identityPeers are the other members, as the hub knows them now.
func (m *Member) identityPeers() []identity.PeerAddress {
	var peers []identity.PeerAddress
	for _, info := range m.store.Membership().List() {
		if info.Name != m.config.Name && info.Address != "" {
			peers = append(peers, identity.PeerAddress{Name: info.Name, Address: net.JoinHostPort(info.Address, RPCPort)})
		}
	}
	return peers
}

// planOf reads the committed record.
func planOf(record *raftlogv1.AuthoritiesRecord) (identity.Plan, error) {
	plan := identity.Plan{Generation: record.GetGeneration(), Stage: identity.Stage(record.GetStage())}
	var err error
	if plan.Present, err = identity.ParseCA(record.GetPresent()); err != nil {
		return plan, fmt.Errorf("the record of the hub's CAs: present: %w", err)
	}
	if len(record.GetNext()) > 0 {
		if plan.Next, err = identity.ParseCA(record.GetNext()); err != nil {
			return plan, fmt.Errorf("the record of the hub's CAs: next: %w", err)
		}
	}
	return plan, plan.Validate()
}

func recordOf(plan identity.Plan) *raftlogv1.AuthoritiesRecord {
	record := &raftlogv1.AuthoritiesRecord{
		Generation: plan.Generation, Stage: raftlogv1.AuthorityStage(plan.Stage), Present: encodeCA(plan.Present),
	}
	if plan.Next != nil {
		record.Next = encodeCA(plan.Next)
	}
	return record
}

func encodeCA(ca *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.Raw})
}

// hubAuthorities is what agents are told.
func (m *Member) hubAuthorities() *agentv1.HubAuthorities {
	return &agentv1.HubAuthorities{
		Generation: m.identity.Plan().Generation, Certificates: m.identity.RootsPEM(), Issuer: identity.Fingerprint(m.identity.Issuer()),
	}
}

// dialStore is how the member's API server reaches the member's store.
func (m *Member) dialStore(ctx context.Context, network, address string) (net.Conn, error) {
	config := m.identity.PeerTLS(identity.KindMember)
	config.NextProtos = []string{"h2"}
	return (&tls.Dialer{Config: config}).DialContext(ctx, network, address)
}

// noteOldCertificates lets a rotation of the CA know who still comes with a
// certificate of the one that is to go.
func (m *Member) noteOldCertificates(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if m.identity.Plan().Stage >= identity.StageIssue && r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
			m.identity.ShownByPerson(r.TLS.PeerCertificates[0])
		}
		next.ServeHTTP(w, r)
	})
}
