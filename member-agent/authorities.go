package memberagent

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"

	agentv1 "tripod.dev/tripod/proto/agent/v1"
)

// entryGeneration is which of the hub's CAs the identity Secret holds.
const entryGeneration = "ca.generation"

// guardsSettle is how long the guards have to read what their Secrets say: the
// effector writes them once a minute, and a kubelet needs up to two more. Before that
// nobody in the cluster shows a certificate of a CA that is new.
const guardsSettle = 5 * time.Minute

// heed takes what a hub member says of the hub's CAs. Of two the higher generation
// counts; a member that lags says an older one.
func (c *credentials) heed(said *agentv1.HubAuthorities) bool {
	for {
		known := c.told.Load()
		if known != nil && said.GetGeneration() <= known.GetGeneration() {
			return false
		}
		if c.told.CompareAndSwap(known, said) {
			select {
			case c.changed <- struct{}{}:
			default:
			}
			return true
		}
	}
}

// adopt takes an identity on. What else is in the cluster has time from the moment on
// when its CAs were new here.
func (c *credentials) adopt(next *identity, now time.Time) {
	next.since = now
	if before := c.present.Load(); before != nil && before.generation == next.generation {
		next.since = before.since
	}
	c.present.Store(next)
}

// AuthorityPEM are the hub's CAs for the guards' Secrets.
func (c *credentials) AuthorityPEM() []byte {
	if present := c.present.Load(); present != nil {
		return present.authorityPEM
	}
	return nil
}

// Outdated says that a certificate is of another CA than the one that issues now, and
// that it is time to replace it.
func (c *credentials) Outdated(leaf *x509.Certificate) (outdated, due bool) {
	if c.foreign(leaf) == nil {
		return false, false
	}
	present := c.present.Load()
	return true, present.generation >= c.told.Load().GetGeneration() && time.Since(present.since) >= c.settle
}

// foreign is nil for a certificate of the CA that issues now; else it says whose.
func (c *credentials) foreign(leaf *x509.Certificate) error {
	told := c.told.Load()
	present := c.present.Load()
	if told == nil || present == nil || told.GetGeneration() == 0 {
		return nil
	}
	for rest := present.authorityPEM; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return fmt.Errorf("the CA %s, which issues now, is not known here yet", told.GetIssuer())
		}
		sum := sha256.Sum256(block.Bytes)
		if "sha256:"+hex.EncodeToString(sum[:]) != told.GetIssuer() {
			continue
		}
		ca, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return fmt.Errorf("read the hub's CA: %w", err)
		}
		return leaf.CheckSignatureFrom(ca)
	}
}

// identityIn reads the identity Secret.
func identityIn(secret *corev1.Secret) (*identity, error) {
	present, err := parseIdentity(secret.Data[entryCertificate], secret.Data[entryKey], secret.Data[entryAuthority])
	if err == nil {
		present.generation = generationOf(secret)
	}
	return present, err
}

// generationOf is that of a stored identity.
func generationOf(secret *corev1.Secret) uint64 {
	n, err := strconv.ParseUint(string(secret.Data[entryGeneration]), 10, 64)
	if err != nil {
		return 0 // from before there were any
	}
	return n
}

// trustInto puts the hub's present CAs into the identity Secret; false if they are
// there already, or a later generation is.
func (c *credentials) trustInto(secret *corev1.Secret) bool {
	told := c.told.Load()
	if told == nil || told.GetGeneration() <= generationOf(secret) || !x509.NewCertPool().AppendCertsFromPEM(told.GetCertificates()) {
		return false
	}
	secret.Data[entryAuthority] = bytes.Clone(told.GetCertificates())
	secret.Data[entryGeneration] = strconv.AppendUint(nil, told.GetGeneration(), 10)
	return true
}

// progress is how far this replica has come, for the hub.
func (c *credentials) progress(guards []string) *agentv1.AuthorityProgress {
	present := c.present.Load()
	if present == nil {
		return nil
	}
	progress := &agentv1.AuthorityProgress{Generation: present.generation, Pending: guards}
	if outdated, _ := c.Outdated(present.certificate.Leaf); outdated {
		progress.Pending = append(progress.Pending, "its agent has a certificate of the old CA")
	}
	return progress
}
