package effector

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"tripod.dev/tripod/failover/guard"
)

// GuardSecret is the name of the Secret that a database's pod mounts for its
// guard, in the dataset's namespace.
func GuardSecret(dataset string) string { return "tripod-guard-" + dataset }

const (
	// certifyEvery is how often a certificate that is good is looked at again.
	certifyEvery = time.Minute
	// certifyAtOnce bounds how many are looked at: when a thousand are due, each would
	// wait for the API server until its time is over.
	certifyAtOnce = 8
)

// certifier gives each guard its certificate.
type certifier struct{ *Effector }

// certify keeps the guard's Secret filled, in this tick or one of the next. The pod
// waits for it to exist; the guard reads it again at each dial.
func (e certifier) certify(ctx context.Context, s *site) error {
	now := time.Now()
	s.mu.Lock()
	good := now.Sub(s.certified) < certifyEvery
	s.mu.Unlock()
	if good {
		return nil
	}
	defer e.certifying.Add(-1)
	if e.certifying.Add(1) > certifyAtOnce {
		return nil
	}
	return e.look(ctx, s, now)
}

// look looks at the guard's Secret, and fills it.
func (e certifier) look(ctx context.Context, s *site, now time.Time) (err error) {
	behind := ""
	defer func() {
		if err != nil {
			behind = fmt.Sprintf("the certificate of the guard of %s: %v", s.key, err)
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.behind = behind
	}()
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	identity := guard.Identity{Cluster: e.cfg.Cluster, Namespace: s.key.namespace, Dataset: s.key.name}
	name := GuardSecret(s.key.name)
	data, err := e.cfg.Secrets.Secret(ctx, s.key.namespace, name)
	if err != nil {
		return fmt.Errorf("read Secret %s/%s: %w", s.key.namespace, name, err)
	}
	good := usable(data, identity, e.cfg.Identity.Authority(), now)
	outdated, due := false, false
	if good {
		outdated, due = e.cfg.Identity.Outdated(leafOf(data))
	}
	hubs := e.hubs()
	switch authority := e.cfg.Identity.AuthorityPEM(); {
	case !good || due:
		if err := e.issue(ctx, identity, name, hubs); err != nil {
			return err
		}
	case !bytes.Equal(data["ca.crt"], authority):
		data = maps.Clone(data)
		data["ca.crt"] = authority
		if len(hubs) > 0 {
			data[guard.HubsFile] = hubs
		}
		if err := e.put(ctx, identity, name, data); err != nil {
			return err
		}
		behind = fmt.Sprintf("the guard of %s is about to be told the new CA", s.key)
	case len(hubs) > 0 && !bytes.Equal(hubs, data[guard.HubsFile]):
		data = maps.Clone(data)
		data[guard.HubsFile] = hubs
		if err := e.put(ctx, identity, name, data); err != nil {
			return err
		}
	}
	if outdated && !due && behind == "" {
		behind = fmt.Sprintf("the guard of %s has a certificate of the old CA", s.key)
	}
	s.mu.Lock()
	s.certified = now
	s.mu.Unlock()
	return nil
}

// hubs is where a guard finds the hub when no agent answers it.
func (e certifier) hubs() []byte {
	members := slices.Clone(e.cfg.Hubs())
	slices.Sort(members)
	return []byte(strings.Join(members, "\n"))
}

func (e certifier) issue(ctx context.Context, identity guard.Identity, name string, hubs []byte) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	request, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject: pkix.Name{CommonName: identity.CommonName(), Organization: []string{guard.GuardsOrganization}},
	}, key)
	if err != nil {
		return err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	certificate, authority, err := e.cfg.Certificates.GuardCertificate(ctx, identity.Namespace, identity.Dataset,
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: request}))
	if err != nil {
		return fmt.Errorf("have the hub sign the certificate of %s: %w", identity.CommonName(), err)
	}
	return e.put(ctx, identity, name, map[string][]byte{
		"tls.crt": certificate, "tls.key": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), "ca.crt": authority,
		guard.HubsFile: hubs,
	})
}

func (e certifier) put(ctx context.Context, identity guard.Identity, name string, data map[string][]byte) error {
	if err := e.cfg.Secrets.PutSecret(ctx, identity.Namespace, name, data); err != nil {
		return fmt.Errorf("write Secret %s/%s: %w", identity.Namespace, name, err)
	}
	return nil
}

// GuardsBehind are the guards that do not trust all of the hub's CAs yet, or have a
// certificate of another than the one that issues; in words.
func (e *Effector) GuardsBehind() (list []string) {
	e.mu.Lock()
	sites := slices.Collect(maps.Values(e.sites))
	e.mu.Unlock()
	for _, s := range sites {
		s.mu.Lock()
		if s.behind != "" {
			list = append(list, s.behind)
		}
		s.mu.Unlock()
	}
	slices.Sort(list)
	return list
}

// leafOf is the guard's certificate; nil if there is none.
func leafOf(data map[string][]byte) *x509.Certificate {
	block, _ := pem.Decode(data["tls.crt"])
	if block == nil {
		return nil
	}
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil
	}
	return leaf
}

// usable is false for what is missing, someone else's, of another hub, or in
// the last third of its life.
func usable(data map[string][]byte, want guard.Identity, roots *x509.CertPool, now time.Time) bool {
	leaf := leafOf(data)
	if leaf == nil || len(data["tls.key"]) == 0 || len(data["ca.crt"]) == 0 {
		return false
	}
	_, rest := pem.Decode(data["tls.crt"])
	chain := []*x509.Certificate{leaf}
	for block, rest := pem.Decode(rest); block != nil; block, rest = pem.Decode(rest) {
		if c, err := x509.ParseCertificate(block.Bytes); err == nil {
			chain = append(chain, c)
		}
	}
	id, err := guard.ParseIdentity(leaf)
	life := leaf.NotAfter.Sub(leaf.NotBefore)
	return err == nil && id == want && now.Before(leaf.NotAfter.Add(-life/3)) && verifyChain(chain, roots) == nil
}
