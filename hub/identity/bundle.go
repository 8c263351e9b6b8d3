package identity

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"tripod.dev/tripod/hub/encryption"
)

// Bundle is what all members of a hub share. Whoever has it can be any of them.
type Bundle struct {
	// authorities are those of the moment when the bundle was read or given;
	// Identity.trust has the present ones.
	authorities *authorities
	// ServiceAccountKey signs service account tokens; any member's tokens are
	// valid at every other.
	ServiceAccountKey *ecdsa.PrivateKey
	// EvidenceKey signs the head of a run's evidence.
	EvidenceKey ed25519.PrivateKey
	// Encryption is the EncryptionConfiguration of what the API servers keep. It
	// alone changes; see Identity.SetEncryption.
	Encryption []byte
}

// Files of a bundle and of the member, below DataDir/pki.
const (
	fileCACertificate     = "ca.crt"
	fileCAKey             = "ca.key"
	fileServiceAccountKey = "service-account.key"
	fileEvidenceKey       = "evidence.key"
	fileEncryption        = "encryption.yaml"
	// fileAuthorities is there once the hub has changed its CA, and then counts more
	// than the two files of the CA. fileCandidate is a CA that nobody trusts yet.
	fileAuthorities       = "authorities.json"
	fileCandidate         = "candidate.json"
	fileMemberCertificate = "member.crt"
	fileMemberKey         = "member.key"
	// fileFounder is empty; it marks the member that made the bundle.
	fileFounder = "founder"
)

// encodedBundle is a bundle on disk and on the wire of tripod-join/1; all PEM.
type encodedBundle struct {
	CACertificate     []byte `json:"caCertificate"`
	CAKey             []byte `json:"caKey"`
	ServiceAccountKey []byte `json:"serviceAccountKey"`
	EvidenceKey       []byte `json:"evidenceKey"`
	// Encryption is empty in a hub that is older than encryption at rest.
	Encryption []byte `json:"encryption,omitempty"`
	// Authorities is empty in a hub that never changed its CA.
	Authorities []byte `json:"authorities,omitempty"`
}

func newBundle(now time.Time) (*Bundle, error) {
	authority, err := newAuthority(now)
	if err != nil {
		return nil, err
	}
	serviceAccountKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make the service account key: %w", err)
	}
	_, evidenceKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make the evidence key: %w", err)
	}
	key, err := encryption.NewKey(now)
	if err != nil {
		return nil, err
	}
	text, err := encryption.Ring{key}.Text()
	if err != nil {
		return nil, err
	}
	return &Bundle{authorities: settledOn(authority), ServiceAccountKey: serviceAccountKey, EvidenceKey: evidenceKey, Encryption: text}, nil
}

// encode returns the bundle with the authorities of now.
func (b *Bundle) encode(now *authorities) (encodedBundle, error) {
	caKey, err1 := encodeKey(now.shower().key)
	serviceAccountKey, err2 := encodeECKey(b.ServiceAccountKey)
	evidenceKey, err3 := encodeKey(b.EvidenceKey)
	var all []byte
	var err4 error
	if now.plan.Generation > 0 {
		all, err4 = now.encode()
	}
	return encodedBundle{
		CACertificate:     now.certificatesPEM(),
		Authorities:       all,
		CAKey:             caKey,
		ServiceAccountKey: serviceAccountKey,
		EvidenceKey:       evidenceKey,
		Encryption:        b.Encryption,
	}, errors.Join(err1, err2, err3, err4)
}

func (e encodedBundle) decode() (*Bundle, error) {
	authorities, err := e.authorities()
	if err != nil {
		return nil, err
	}
	key, err := decodeKey(e.ServiceAccountKey)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", fileServiceAccountKey, err)
	}
	serviceAccountKey, ok := key.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("%s: %T is not an ECDSA key", fileServiceAccountKey, key)
	}
	key, err = decodeKey(e.EvidenceKey)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", fileEvidenceKey, err)
	}
	evidenceKey, ok := key.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("%s: %T is not an Ed25519 key", fileEvidenceKey, key)
	}
	if len(e.Encryption) == 0 {
		if e.Encryption, err = encryption.Ring(nil).Text(); err != nil {
			return nil, err
		}
	}
	if _, err := encryption.ParseRing(e.Encryption); err != nil {
		return nil, fmt.Errorf("%s: %w", fileEncryption, err)
	}
	return &Bundle{authorities: authorities, ServiceAccountKey: serviceAccountKey, EvidenceKey: evidenceKey, Encryption: e.Encryption}, nil
}

func (e encodedBundle) authorities() (*authorities, error) {
	if len(e.Authorities) > 0 {
		all, err := decodeAuthorities(e.Authorities)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", fileAuthorities, err)
		}
		return all, nil
	}
	authority, err := savedAuthority{e.CACertificate, e.CAKey}.decode()
	if err != nil {
		return nil, err
	}
	return settledOn(authority), nil
}

// files orders a bundle's files. The CA's certificate is last: it is written
// last and its absence means that there is no bundle.
func (e *encodedBundle) files() []bundleFile {
	return []bundleFile{
		{fileCAKey, &e.CAKey},
		{fileServiceAccountKey, &e.ServiceAccountKey},
		{fileEvidenceKey, &e.EvidenceKey},
		{fileEncryption, &e.Encryption},
		{fileCACertificate, &e.CACertificate},
	}
}

type bundleFile struct {
	name string
	data *[]byte
}

// errNoBundle: the directory holds none, or one whose writing was cut short.
var errNoBundle = errors.New("identity: no bundle in the data directory")

func readBundle(directory string) (*Bundle, error) {
	if _, err := os.Stat(filepath.Join(directory, fileCACertificate)); errors.Is(err, fs.ErrNotExist) {
		return nil, errNoBundle
	}
	var encoded encodedBundle
	for _, file := range encoded.files() {
		data, err := os.ReadFile(filepath.Join(directory, file.name))
		if file.name == fileEncryption && errors.Is(err, fs.ErrNotExist) {
			continue // a hub that is older than encryption at rest
		}
		if err != nil {
			return nil, fmt.Errorf("identity: read %s: %w: restore the directory from this member's backup, or empty it so that the member fetches it again",
				directory, err)
		}
		*file.data = data
	}
	var err error
	if encoded.Authorities, err = readAuthorities(directory); err != nil {
		return nil, fmt.Errorf("identity: %w", err)
	}
	bundle, err := encoded.decode()
	if err != nil {
		return nil, fmt.Errorf("identity: %s: %w: restore the directory from this member's backup, or empty it so that the member fetches it again",
			directory, err)
	}
	return bundle, nil
}

// writeBundle returns when the bundle is durable.
func writeBundle(directory string, b *Bundle) error {
	encoded, err := b.encode(b.authorities)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(directory, 0o700); err != nil {
		return fmt.Errorf("identity: %w", err)
	}
	if len(encoded.Authorities) > 0 {
		if err := writeFile(filepath.Join(directory, fileAuthorities), encoded.Authorities); err != nil {
			return err
		}
	}
	for _, file := range encoded.files() {
		if err := writeFile(filepath.Join(directory, file.name), *file.data); err != nil {
			return err
		}
	}
	return nil
}

// writeFile replaces path by data, mode 0600, atomically and durably.
func writeFile(path string, data []byte) error {
	directory := filepath.Dir(path)
	temporary, err := os.CreateTemp(directory, "."+filepath.Base(path)+"-*")
	if err != nil {
		return fmt.Errorf("identity: write %s: %w", path, err)
	}
	defer func() { _ = os.Remove(temporary.Name()) }() // gone already after the rename
	_, err = temporary.Write(data)
	err = errors.Join(err, temporary.Sync(), temporary.Close())
	if err == nil {
		err = os.Rename(temporary.Name(), path)
	}
	if err == nil {
		err = syncDirectory(directory)
	}
	if err != nil {
		return fmt.Errorf("identity: write %s: %w", path, err)
	}
	return nil
}

func syncDirectory(path string) error {
	directory, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(directory.Sync(), directory.Close())
}
