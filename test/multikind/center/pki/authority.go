// Package pki makes the certificates of a lab's clusters. Keys are ECDSA P-256 and
// live as long as the lab: nothing is rotated here.
package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

const lifetime = 10 * 365 * 24 * time.Hour

// Pair is a certificate and its private key, both PEM.
type Pair struct {
	Certificate []byte
	Key         []byte
}

// Authority is a certificate authority kept in a folder.
type Authority struct {
	folder      string
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	// Certificate is the authority's own, PEM.
	Certificate []byte
}

// Request says for whom a certificate is made and where it may be used: as a client
// always, as a server when it has Hosts (DNS names or IP addresses).
type Request struct {
	CommonName    string
	Organizations []string
	Hosts         []string
}

// OpenAuthority reads the authority name from folder, or makes it there.
func OpenAuthority(folder, name string) (*Authority, error) {
	pair, err := readOrMake(filepath.Join(folder, name), func() (Pair, error) { return selfSigned(name) })
	if err != nil {
		return nil, fmt.Errorf("open authority %s: %w", name, err)
	}
	certificate, err := x509.ParseCertificate(decode(pair.Certificate))
	if err != nil {
		return nil, fmt.Errorf("parse authority %s: %w", name, err)
	}
	key, err := x509.ParseECPrivateKey(decode(pair.Key))
	if err != nil {
		return nil, fmt.Errorf("parse key of authority %s: %w", name, err)
	}
	return &Authority{folder: folder, certificate: certificate, key: key, Certificate: pair.Certificate}, nil
}

// Issue reads the certificate name from the authority's folder, or makes it there as
// NAME.crt and NAME.key.
func (a *Authority) Issue(name string, request Request) (Pair, error) {
	pair, err := readOrMake(filepath.Join(a.folder, name), func() (Pair, error) { return a.sign(request) })
	if err != nil {
		return Pair{}, fmt.Errorf("issue certificate %s: %w", name, err)
	}
	return pair, nil
}

// SigningKey reads the key pair name from folder, or makes it there: NAME.key private
// and NAME.pub public, PEM, as an API server wants for service account tokens.
func SigningKey(folder, name string) error {
	path := filepath.Join(folder, name)
	if _, err := os.Stat(path + ".pub"); err == nil {
		return nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("make key %s: %w", name, err)
	}
	private, err := encodeKey(key)
	if err != nil {
		return err
	}
	public, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return fmt.Errorf("encode key %s: %w", name, err)
	}
	if err := write(path+".key", private); err != nil {
		return err
	}
	return write(path+".pub", encode("PUBLIC KEY", public))
}

func selfSigned(name string) (Pair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Pair{}, err
	}
	template := template(Request{CommonName: name})
	template.IsCA, template.BasicConstraintsValid = true, true
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = nil
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return Pair{}, err
	}
	return pair(der, key)
}

func (a *Authority) sign(request Request) (Pair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Pair{}, err
	}
	der, err := x509.CreateCertificate(rand.Reader, template(request), a.certificate, &key.PublicKey, a.key)
	if err != nil {
		return Pair{}, err
	}
	return pair(der, key)
}

func template(request Request) *x509.Certificate {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		panic(err) // crypto/rand does not fail on Linux
	}
	now := time.Now()
	certificate := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: request.CommonName, Organization: request.Organizations},
		NotBefore:    now.Add(-time.Hour),
		NotAfter:     now.Add(lifetime),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	for _, host := range request.Hosts {
		if ip := net.ParseIP(host); ip != nil {
			certificate.IPAddresses = append(certificate.IPAddresses, ip)
		} else {
			certificate.DNSNames = append(certificate.DNSNames, host)
		}
	}
	if len(request.Hosts) > 0 {
		certificate.ExtKeyUsage = append(certificate.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
	}
	return certificate
}

func pair(der []byte, key *ecdsa.PrivateKey) (Pair, error) {
	private, err := encodeKey(key)
	return Pair{Certificate: encode("CERTIFICATE", der), Key: private}, err
}

func encodeKey(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode key: %w", err)
	}
	return encode("EC PRIVATE KEY", der), nil
}

func encode(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func decode(data []byte) []byte {
	if block, _ := pem.Decode(data); block != nil {
		return block.Bytes
	}
	return nil
}

// readOrMake writes the certificate last: a pair without one is made anew.
func readOrMake(path string, make func() (Pair, error)) (Pair, error) {
	certificate, err := os.ReadFile(path + ".crt")
	if err == nil {
		key, err := os.ReadFile(path + ".key")
		return Pair{Certificate: certificate, Key: key}, err
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return Pair{}, err
	}
	made, err := make()
	if err != nil {
		return Pair{}, err
	}
	if err := write(path+".key", made.Key); err != nil {
		return Pair{}, err
	}
	return made, write(path+".crt", made.Certificate)
}

// write replaces path at once, so that a crash leaves the old content or the new.
func write(path string, content []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("make folder: %w", err)
	}
	if err := os.WriteFile(path+".new", content, 0o600); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return fmt.Errorf("replace: %w", err)
	}
	return nil
}
