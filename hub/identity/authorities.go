package identity

import (
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// authorities are the CAs that a member trusts, with the keys that it holds. It is
// immutable. At least one has its key.
type authorities struct {
	plan Plan
	// held are those of the plan, and while the member lacks the key that it needs
	// by the plan, the one that it goes on with.
	held []*Authority
	pool *x509.CertPool
}

// newAuthorities is the plan with the keys that are known.
func newAuthorities(plan Plan, known ...*Authority) (*authorities, error) {
	a := &authorities{plan: plan, pool: x509.NewCertPool()}
	find := func(cert *x509.Certificate) *Authority {
		for _, k := range known {
			if k != nil && k.key != nil && k.cert.Equal(cert) {
				return k
			}
		}
		return nil
	}
	for _, cert := range plan.trusted() {
		authority := find(cert)
		if authority == nil {
			authority = &Authority{cert: cert}
		}
		a.held = append(a.held, authority)
	}
	if !slices.ContainsFunc(a.held, (*Authority).signs) {
		i := slices.IndexFunc(known, func(k *Authority) bool { return k != nil && k.signs() })
		if i < 0 {
			return nil, errors.New("identity: the member holds the key of none of the hub's CAs")
		}
		a.held = append(a.held, known[i])
	}
	for _, authority := range a.held {
		a.pool.AddCert(authority.cert)
	}
	return a, nil
}

// settledOn is a hub's one CA.
func settledOn(authority *Authority) *authorities {
	return &authorities{plan: Plan{Present: authority.cert}, held: []*Authority{authority}, pool: authority.Pool()}
}

// by is the authority of that certificate, or one that this member can sign with
// while it lacks that key.
func (a *authorities) by(cert *x509.Certificate) *Authority {
	var other *Authority
	for _, authority := range a.held {
		if authority.signs() && authority.cert.Equal(cert) {
			return authority
		}
		if authority.signs() && other == nil {
			other = authority
		}
	}
	return other
}

func (a *authorities) issuer() *Authority { return a.by(a.plan.issuing()) }
func (a *authorities) shower() *Authority { return a.by(a.plan.showing()) }

// lacking names the CAs of the plan whose key the member has not got.
func (a *authorities) lacking() (missing []*x509.Certificate) {
	for _, authority := range a.held {
		if !authority.signs() {
			missing = append(missing, authority.cert)
		}
	}
	return missing
}

// certificatesPEM are all that are trusted, the one that members show first.
func (a *authorities) certificatesPEM() (text []byte) {
	first := a.shower()
	text = first.CertificatePEM()
	for _, authority := range a.held {
		if authority != first {
			text = append(text, authority.CertificatePEM()...)
		}
	}
	return text
}

// fingerprints are those of all that are trusted.
func (a *authorities) fingerprints() (list []string) {
	for _, authority := range a.held {
		list = append(list, authority.Fingerprint())
	}
	return list
}

// savedAuthorities are authorities on disk and on the wire of tripod-join/1.
type savedAuthorities struct {
	Generation uint64           `json:"generation"`
	Stage      Stage            `json:"stage"`
	Present    []byte           `json:"present"`
	Next       []byte           `json:"next,omitempty"`
	Held       []savedAuthority `json:"held"`
}

type savedAuthority struct {
	Certificate []byte `json:"certificate"`
	Key         []byte `json:"key"`
}

func (a *authorities) encode() ([]byte, error) {
	saved := savedAuthorities{Generation: a.plan.Generation, Stage: a.plan.Stage, Present: encodeCertificate(a.plan.Present.Raw)}
	if a.plan.Next != nil {
		saved.Next = encodeCertificate(a.plan.Next.Raw)
	}
	for _, authority := range a.held {
		if !authority.signs() {
			continue
		}
		key, err := encodeKey(authority.key)
		if err != nil {
			return nil, err
		}
		saved.Held = append(saved.Held, savedAuthority{authority.CertificatePEM(), key})
	}
	return json.Marshal(saved)
}

func decodeAuthorities(text []byte) (*authorities, error) {
	var saved savedAuthorities
	if err := json.Unmarshal(text, &saved); err != nil {
		return nil, err
	}
	plan := Plan{Generation: saved.Generation, Stage: saved.Stage}
	var err error
	if plan.Present, err = ParseCA(saved.Present); err != nil {
		return nil, fmt.Errorf("present: %w", err)
	}
	if len(saved.Next) > 0 {
		if plan.Next, err = ParseCA(saved.Next); err != nil {
			return nil, fmt.Errorf("next: %w", err)
		}
	}
	if err := plan.Validate(); err != nil {
		return nil, err
	}
	var known []*Authority
	for _, held := range saved.Held {
		authority, err := held.decode()
		if err != nil {
			return nil, err
		}
		known = append(known, authority)
	}
	return newAuthorities(plan, known...)
}

func (s savedAuthority) decode() (*Authority, error) {
	der, err := decodeCertificate(s.Certificate)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", fileCACertificate, err)
	}
	key, err := decodeKey(s.Key)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", fileCAKey, err)
	}
	return parseAuthority(der, key)
}

// ParseCA reads the first certificate of a PEM text.
func ParseCA(text []byte) (*x509.Certificate, error) {
	der, err := decodeCertificate(text)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// readAuthorities returns nil without an error when there is no file: the hub has
// never changed its CA.
func readAuthorities(directory string) ([]byte, error) {
	text, err := os.ReadFile(filepath.Join(directory, fileAuthorities))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return text, err
}

// writeAuthorities returns when they are durable. The first file is what counts; the
// others are what it says, for programs that read paths.
func writeAuthorities(directory string, a *authorities) error {
	text, err := a.encode()
	if err != nil {
		return err
	}
	key, err := encodeKey(a.shower().key)
	if err != nil {
		return err
	}
	return errors.Join(
		writeFile(filepath.Join(directory, fileAuthorities), text),
		writeFile(filepath.Join(directory, fileCAKey), key),
		writeFile(filepath.Join(directory, fileCACertificate), a.certificatesPEM()),
	)
}
