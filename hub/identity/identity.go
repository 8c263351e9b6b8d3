package identity

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Identity is one hub member's. It is safe for concurrent use.
type Identity struct {
	config Config
	bundle *Bundle
	// trust is which CAs count now.
	trust atomic.Pointer[authorities]
	// encryptionMu guards bundle.Encryption, which alone changes in the bundle.
	encryptionMu sync.RWMutex
	directory    string

	member atomic.Pointer[tls.Certificate]
	admin  atomic.Pointer[x509.Certificate]
	shown  shown
	old    old
	// failures counts renewals that failed.
	failures atomic.Uint64

	// known says whether the hub has, or expects, a member of that name.
	known atomic.Pointer[func(name string) bool]
	// level is the one of the store's command set that is in force.
	level atomic.Pointer[func() uint32]

	renewing    sync.Mutex
	listenersMu sync.Mutex
	listeners   []func()
}

// Open returns the member's identity: from its data directory; else from a
// peer, waiting for one until ctx ends; else, on the bootstrap member when no
// peer that it reaches has a CA, a new one. On return bundle, member
// certificate and admin.kubeconfig are on disk. Call Run to keep them valid.
func Open(ctx context.Context, config Config) (*Identity, error) {
	config = config.WithDefaults()
	if err := config.Validate(); err != nil {
		return nil, err
	}
	directory := filepath.Join(config.DataDir, "pki")
	if err := os.MkdirAll(directory, 0o700); err != nil {
		return nil, fmt.Errorf("identity: %w", err)
	}
	bundle, err := readBundle(directory)
	if errors.Is(err, errNoBundle) {
		if bundle, err = obtainBundle(ctx, config, directory); err == nil {
			err = writeBundle(directory, bundle)
		}
	}
	if err != nil {
		return nil, err
	}
	i := &Identity{config: config, bundle: bundle, directory: directory}
	i.trust.Store(bundle.authorities)
	if bundle.authorities.plan.Generation > 0 { // what a crash left half-written
		if err := writeAuthorities(directory, bundle.authorities); err != nil {
			return nil, err
		}
	}
	if err := errors.Join(i.renew(), i.SetEncryption(bundle.Encryption)); err != nil {
		return nil, err
	}
	config.Logger.Info("identity ready", "member", config.Name, "ca", bundle.authorities.shower().Fingerprint())
	return i, nil
}

// obtainBundle gets a bundle for a member that has none, and marks the one that
// makes it as the founder.
func obtainBundle(ctx context.Context, config Config, directory string) (*Bundle, error) {
	founder := filepath.Join(directory, fileFounder)
	if config.Bootstrap {
		// A bootstrap member that lost its disk must not make a second CA
		// while its peers still hold the first.
		bundle, err := fetchOnce(ctx, config)
		if err != nil {
			return nil, err
		}
		if bundle != nil {
			return bundle, os.RemoveAll(founder) // of an attempt that was cut short
		}
		config.Logger.Info("making the hub's CA", "member", config.Name)
		if err := writeFile(founder, nil); err != nil {
			return nil, err
		}
		return newBundle(config.Now())
	}
	return fetchBundle(ctx, config)
}

// Founds says whether this member, with this data folder, made the hub's CA. A
// member that was given the CA joins a hub that exists, and must not form another
// one, whatever its configuration says.
func (i *Identity) Founds() bool {
	_, err := os.Stat(filepath.Join(i.directory, fileFounder))
	return err == nil
}

// Name is this member's name.
func (i *Identity) Name() string { return i.config.Name }

// Authority is the CA by which this member signs what is asked for, as of now.
func (i *Identity) Authority() *Authority { return i.trust.Load().issuer() }

// ServiceAccountKey signs service account tokens.
func (i *Identity) ServiceAccountKey() *ecdsa.PrivateKey { return i.bundle.ServiceAccountKey }

// EvidenceKey signs the head of a run's evidence.
func (i *Identity) EvidenceKey() ed25519.PrivateKey { return i.bundle.EvidenceKey }

// Encryption is the EncryptionConfiguration in force.
func (i *Identity) Encryption() []byte {
	i.encryptionMu.RLock()
	defer i.encryptionMu.RUnlock()
	return i.bundle.Encryption
}

// SetEncryption replaces the EncryptionConfiguration. On return it is on disk, and
// members that join are given it.
func (i *Identity) SetEncryption(text []byte) error {
	if err := writeFile(filepath.Join(i.directory, fileEncryption), text); err != nil {
		return err
	}
	i.encryptionMu.Lock()
	defer i.encryptionMu.Unlock()
	i.bundle.Encryption = text
	return nil
}

// Certificate is the member's current one, followed by the CA's, so that a
// joining agent can find the CA that its token pins.
func (i *Identity) Certificate() *tls.Certificate { return i.member.Load() }

// ClientCertificate is the member's current one alone, as a client shows it. Who verifies
// it has the CA; one that comes along is tried as an intermediate as well, and a
// kube-apiserver verifies at each request: two signatures instead of one.
func (i *Identity) ClientCertificate() *tls.Certificate {
	current := i.member.Load()
	return &tls.Certificate{Certificate: current.Certificate[:1], PrivateKey: current.PrivateKey, Leaf: current.Leaf}
}

// Files of the identity, for programs that take paths.
type Files struct {
	CACertificate, MemberCertificate, MemberKey, ServiceAccountKey, Encryption, AdminKubeconfig string
}

// Files names the identity's files; they are mode 0600.
func (i *Identity) Files() Files {
	in := func(name string) string { return filepath.Join(i.directory, name) }
	return Files{
		CACertificate:     in(fileCACertificate),
		MemberCertificate: in(fileMemberCertificate),
		MemberKey:         in(fileMemberKey),
		ServiceAccountKey: in(fileServiceAccountKey),
		Encryption:        in(fileEncryption),
		AdminKubeconfig:   filepath.Join(i.config.DataDir, fileAdminKubeconfig),
	}
}

// OnRenewal has f called, on Run's goroutine, after each renewal of the
// member's certificate.
func (i *Identity) OnRenewal(f func()) {
	i.listenersMu.Lock()
	defer i.listenersMu.Unlock()
	i.listeners = append(i.listeners, f)
}

// Admit lets members join that known knows, besides those of the configuration:
// the identity is opened before the store that holds the hub's address book.
func (i *Identity) Admit(known func(name string) bool) { i.known.Store(&known) }

// Require refuses the bundle to a joining member whose program does not understand
// the level of the store's command set that is in force: it would not get further
// than its first snapshot.
func (i *Identity) Require(level func() uint32) { i.level.Store(&level) }

// Run renews the member's certificate and the administrator's at two thirds of
// their life, and compares the CA with the peers' until each has been heard
// once. It returns nil when ctx ends, and an error that names the peers when
// this member belongs to another hub than they do.
func (i *Identity) Run(ctx context.Context) error {
	check := newPeerCheck(i)
	retry := time.NewTicker(max(i.config.JoinRetry, time.Second))
	defer retry.Stop()
	for {
		if err := check.round(ctx); err != nil {
			return err
		}
		if !i.config.Now().Before(i.renewAt()) {
			if err := i.renew(); err != nil {
				i.failures.Add(1)
				i.config.Logger.Error("cannot renew the member's certificate", "member", i.config.Name, "error", err)
			} else {
				i.announce()
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-retry.C:
		}
	}
}

func (i *Identity) announce() {
	i.listenersMu.Lock()
	listeners := slices.Clone(i.listeners)
	i.listenersMu.Unlock()
	for _, listener := range listeners {
		listener()
	}
}

// renewAt is when the member's certificate has a third of its life left; at once if
// it is not of the CA that members show.
func (i *Identity) renewAt() time.Time {
	cert := i.member.Load().Leaf
	if cert.CheckSignatureFrom(i.trust.Load().shower().cert) != nil {
		return time.Time{}
	}
	return cert.NotAfter.Add(-cert.NotAfter.Sub(cert.NotBefore) / 3)
}

// renew issues the member's and the administrator's certificates afresh. New
// connections are made with them from its return on; those that are open go on.
func (i *Identity) renew() error {
	i.renewing.Lock()
	defer i.renewing.Unlock()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("identity: make the member's key: %w", err)
	}
	authority := i.trust.Load().shower()
	der, err := authority.issue(i.memberLeaf(), key.Public(), i.config.Now())
	if err != nil {
		return fmt.Errorf("identity: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return fmt.Errorf("identity: %w", err)
	}
	keyPEM, err := encodeKey(key)
	if err != nil {
		return fmt.Errorf("identity: %w", err)
	}
	chain := append(encodeCertificate(der), authority.CertificatePEM()...)
	if err := errors.Join(
		writeFile(filepath.Join(i.directory, fileMemberKey), keyPEM),
		writeFile(filepath.Join(i.directory, fileMemberCertificate), chain),
		i.writeAdminKubeconfig(),
	); err != nil {
		return err
	}
	i.member.Store(&tls.Certificate{
		Certificate: [][]byte{der, authority.cert.Raw},
		PrivateKey:  key,
		Leaf:        cert,
	})
	return nil
}

// CertificatePEM encodes the member's current certificate chain and key.
func (i *Identity) CertificatePEM() (cert, key []byte, err error) {
	current := i.member.Load()
	for _, der := range current.Certificate {
		cert = append(cert, encodeCertificate(der)...)
	}
	key, err = encodeKey(current.PrivateKey.(*ecdsa.PrivateKey))
	return cert, key, err
}

func (i *Identity) memberLeaf() leaf {
	l := leaf{
		commonName:    Member(i.config.Name),
		organisations: KindMember.organisations(),
		usages:        []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		validity:      i.config.MemberValidity,
	}
	names := append([]string{
		i.config.Name, i.config.Advertise,
		"localhost", "127.0.0.1", "::1",
		"kubernetes", "kubernetes.default", "kubernetes.default.svc",
	}, i.config.SANs...)
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			if !slices.ContainsFunc(l.addresses, ip.Equal) {
				l.addresses = append(l.addresses, ip)
			}
		} else if !slices.Contains(l.dnsNames, name) {
			l.dnsNames = append(l.dnsNames, name)
		}
	}
	return l
}
