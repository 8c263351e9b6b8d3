package identity

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// Plan is what this member follows. It may be behind what the hub has committed, and
// is ahead of it after a restore with a newer folder pki.
func (i *Identity) Plan() Plan { return i.trust.Load().plan }

// Roots are the CAs that are trusted now. A TLS configuration that verifies by
// itself must ask at each handshake.
func (i *Identity) Roots() *x509.CertPool { return i.trust.Load().pool }

// RootsPEM are the same, the one that has signed what members show first.
func (i *Identity) RootsPEM() []byte { return i.trust.Load().certificatesPEM() }

// Issuer is the CA by which this member signs what is asked for.
func (i *Identity) Issuer() *x509.Certificate { return i.trust.Load().issuer().cert }

// Holds says whether this member could issue by the CA.
func (i *Identity) Holds(ca *x509.Certificate) bool {
	for _, authority := range i.trust.Load().held {
		if authority.signs() && authority.cert.Equal(ca) {
			return true
		}
	}
	return false
}

// Complete is false while the member lacks a key that it should have by its plan.
func (i *Identity) Complete() bool { return len(i.trust.Load().lacking()) == 0 }

// Candidate makes a CA for a rotation. On return its key is on disk, so that the
// plan that names it may be committed.
func (i *Identity) Candidate() (*x509.Certificate, error) {
	authority, err := newAuthority(i.config.Now())
	if err != nil {
		return nil, err
	}
	key, err := encodeKey(authority.key)
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(savedAuthority{authority.CertificatePEM(), key})
	if err != nil {
		return nil, fmt.Errorf("identity: encode the next CA: %w", err)
	}
	if err := writeFile(filepath.Join(i.directory, fileCandidate), text); err != nil {
		return nil, err
	}
	return authority.cert, nil
}

// candidate is the one that this member made last; nil if it made none.
func (i *Identity) candidate() *Authority {
	text, err := os.ReadFile(filepath.Join(i.directory, fileCandidate))
	if err != nil {
		return nil
	}
	var saved savedAuthority
	if err := json.Unmarshal(text, &saved); err != nil {
		return nil // cut short, before it was committed
	}
	authority, err := saved.decode()
	if err != nil {
		return nil
	}
	return authority
}

// Follow takes on a committed plan and returns when it is durable and in force here.
// What the plan trusts is trusted even when it fails; a key that the member has not
// got is asked for at peers, by tripod-join/1, because who holds an old CA's key must
// not get the next one's. An older plan than the one in force is passed over. It may
// be called again with the same plan until it succeeds; not concurrently.
func (i *Identity) Follow(ctx context.Context, plan Plan, peers []PeerAddress) error {
	if err := plan.Validate(); err != nil {
		return err
	}
	present := i.trust.Load()
	if plan.Generation < present.plan.Generation || (plan.Generation == present.plan.Generation && len(present.lacking()) == 0) {
		return nil
	}
	next, err := newAuthorities(plan, append([]*Authority{i.candidate()}, present.held...)...)
	if err != nil {
		return err
	}
	if plan.Generation > present.plan.Generation {
		if err := i.take(next); err != nil {
			return err
		}
	}
	if len(next.lacking()) == 0 {
		return i.forgetCandidate()
	}
	complete, err := i.fetchKeys(ctx, next, peers)
	if err != nil {
		return err
	}
	return i.take(complete)
}

// take puts authorities in force: first what is verified by, then what is shown.
func (i *Identity) take(a *authorities) error {
	if err := writeAuthorities(i.directory, a); err != nil {
		return err
	}
	i.trust.Store(a)
	i.config.Logger.Info("the hub's CAs", "stage", a.plan.Stage.String(), "generation", a.plan.Generation,
		"issuer", a.issuer().Fingerprint(), "shows", a.shower().Fingerprint(), "lacking", len(a.lacking()))
	if err := i.renew(); err != nil {
		i.failures.Add(1)
		return err
	}
	i.announce()
	return nil
}

// forgetCandidate removes the file of a CA that is held now, or was given up.
func (i *Identity) forgetCandidate() error {
	if err := os.RemoveAll(filepath.Join(i.directory, fileCandidate)); err != nil {
		return fmt.Errorf("identity: %w", err)
	}
	return nil
}

// fetchKeys asks the peers, in turn, for the keys that a lacks.
func (i *Identity) fetchKeys(ctx context.Context, a *authorities, peers []PeerAddress) (*authorities, error) {
	missing := fmt.Errorf("identity: no member gave the key of the CA %s", Fingerprint(a.lacking()[0]))
	for _, peer := range peers {
		bundle, err := fetchFrom(ctx, i.config, peer)
		if err != nil {
			missing = errors.Join(missing, fmt.Errorf("%s (%s): %w", peer.Name, peer.Address, err))
			continue
		}
		complete, err := newAuthorities(a.plan, append(bundle.authorities.held, a.held...)...)
		if err != nil {
			return nil, err
		}
		if len(complete.lacking()) == 0 {
			return complete, nil
		}
	}
	return nil, missing
}
