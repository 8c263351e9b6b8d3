// Package encryption encrypts what the hub's API servers keep, before it reaches
// the store: so the Raft log, the database, snapshots and backups hold no object in
// plain text. The work is done by Kubernetes' own encryption at rest; this package
// makes its configuration, and lets it be changed while members run.
package encryption

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	apiserverv1 "k8s.io/apiserver/pkg/apis/apiserver/v1"
	"sigs.k8s.io/yaml"

	"tripod.dev/tripod/hub/api/backup"
)

// everything is all resources, custom ones too.
const everything = "*.*"

// apiVersion of an EncryptionConfiguration.
const apiVersion = "apiserver.config.k8s.io/v1"

// keyBytes is what XSalsa20-Poly1305 (NaCl's secretbox) takes.
const keyBytes = 32

// Key is one secret. Its name is in front of every value that it encrypts; names
// sort by when the keys were made.
type Key struct{ Name, Secret string }

// String does not tell the secret.
func (k Key) String() string { return k.Name }

// NewKey makes a random key.
func NewKey(now time.Time) (Key, error) {
	secret, suffix := make([]byte, keyBytes), make([]byte, 4)
	if _, err := rand.Read(secret); err != nil {
		return Key{}, fmt.Errorf("make an encryption key: %w", err)
	}
	if _, err := rand.Read(suffix); err != nil {
		return Key{}, fmt.Errorf("make an encryption key: %w", err)
	}
	name := now.UTC().Format("20060102t150405z") + "-" + hex.EncodeToString(suffix)
	return Key{Name: name, Secret: base64.StdEncoding.EncodeToString(secret)}, nil
}

// Ring holds the hub's keys. The first one encrypts, all decrypt; what is not
// encrypted is read too. It is the same on every member.
type Ring []Key

// Names are the keys' names, in order.
func (r Ring) Names() []string {
	names := make([]string, len(r))
	for i, k := range r {
		names[i] = k.Name
	}
	return names
}

// newest is the key that was made last; the ring has one at least.
func (r Ring) newest() Key {
	return slices.MaxFunc(r, func(a, b Key) int { return strings.Compare(a.Name, b.Name) })
}

// Rotation gives the rings of a rotation, in order: every member must have one
// before any gets the next. The first lets all members read what the newest key
// encrypts, the second has them write with it; after all has been written again the
// third forgets the other keys. A ring of one key or none gets a new one; a ring
// of several is that of a rotation which was cut short, and goes on.
func (r Ring) Rotation(now time.Time) (known, used, alone Ring, err error) {
	if len(r) < 2 {
		next, err := NewKey(now)
		if err != nil {
			return nil, nil, nil, err
		}
		r = append(slices.Clone(r), next)
	}
	newest := r.newest()
	older := slices.DeleteFunc(slices.Clone(r), func(k Key) bool { return k == newest })
	return append(slices.Clone(older), newest), append(Ring{newest}, older...), Ring{newest}, nil
}

// Text is Kubernetes' EncryptionConfiguration of the ring.
func (r Ring) Text() ([]byte, error) {
	providers := []apiserverv1.ProviderConfiguration{{Identity: &apiserverv1.IdentityConfiguration{}}}
	if len(r) > 0 {
		box := &apiserverv1.SecretboxConfiguration{}
		for _, k := range r {
			box.Keys = append(box.Keys, apiserverv1.Key{Name: k.Name, Secret: k.Secret})
		}
		providers = append([]apiserverv1.ProviderConfiguration{{Secretbox: box}}, providers...)
	}
	text, err := yaml.Marshal(apiserverv1.EncryptionConfiguration{
		TypeMeta:  metav1.TypeMeta{APIVersion: apiVersion, Kind: "EncryptionConfiguration"},
		Resources: []apiserverv1.ResourceConfiguration{{Resources: []string{everything}, Providers: providers}},
	})
	if err != nil {
		return nil, fmt.Errorf("encode the encryption keys: %w", err)
	}
	return text, nil
}

// ErrForeign is returned for a configuration that an operator wrote.
var ErrForeign = errors.New("it is not one that the hub made: whoever wrote it changes it")

// ParseRing reads what Text wrote.
func ParseRing(text []byte) (Ring, error) {
	var c apiserverv1.EncryptionConfiguration
	if err := yaml.UnmarshalStrict(text, &c); err != nil {
		return nil, fmt.Errorf("read the encryption keys: %w", err)
	}
	if len(c.Resources) != 1 || !slices.Equal(c.Resources[0].Resources, []string{everything}) {
		return nil, ErrForeign
	}
	var ring Ring
	for _, p := range c.Resources[0].Providers {
		switch {
		case p.Secretbox != nil:
			for _, k := range p.Secretbox.Keys {
				ring = append(ring, Key{Name: k.Name, Secret: k.Secret})
			}
		case p.Identity == nil:
			return nil, ErrForeign
		}
	}
	return ring, nil
}

// KeyOf returns the name of the key that a stored value is encrypted with, empty if
// it is not encrypted.
func KeyOf(value []byte) string { return backup.EncryptionKey(value) }
