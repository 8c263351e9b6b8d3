package encryption

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/storage/value"
)

func made(t *testing.T, minute int) Key {
	t.Helper()
	key, err := NewKey(time.Date(2026, 11, 21, 6, minute, 0, 0, time.UTC))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestRingIsReadAsItWasWritten(t *testing.T) {
	for _, ring := range []Ring{nil, {made(t, 1)}, {made(t, 1), made(t, 2)}} {
		text, err := ring.Text()
		if err != nil {
			t.Fatal(err)
		}
		got, err := ParseRing(text)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(ring, got); diff != "" {
			t.Errorf("-want +got:\n%s", diff)
		}
	}
	if _, err := ParseRing([]byte("apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n- {resources: [secrets], providers: [{identity: {}}]}\n")); !errors.Is(err, ErrForeign) {
		t.Errorf("an operator's file: %v", err)
	}
}

func TestRotation(t *testing.T) {
	a, b := made(t, 1), made(t, 2)
	tests := map[string]struct{ ring, known, used, alone Ring }{
		"cut short after the new key was known": {Ring{a, b}, Ring{a, b}, Ring{b, a}, Ring{b}},
		"cut short after the new key was used":  {Ring{b, a}, Ring{a, b}, Ring{b, a}, Ring{b}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			known, used, alone, err := test.ring.Rotation(time.Now())
			if diff := cmp.Diff([]Ring{test.known, test.used, test.alone}, []Ring{known, used, alone}); diff != "" || err != nil {
				t.Errorf("%v -want +got:\n%s", err, diff)
			}
		})
	}
	for _, ring := range []Ring{nil, {a}} {
		known, used, alone, err := ring.Rotation(time.Now())
		if err != nil || len(alone) != 1 || len(known) != len(ring)+1 || len(used) != len(known) {
			t.Fatalf("a new one: %v %v %v %v", known, used, alone, err)
		}
		if next := alone[0]; known[len(known)-1] != next || used[0] != next || len(ring) == 1 && (known[0] != a || used[1] != a) {
			t.Errorf("of %v: %v %v %v", ring, known, used, alone)
		}
	}
}

func TestBoxFollowsItsFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "encryption.yaml")
	write := func(ring Ring) {
		t.Helper()
		text, err := ring.Text()
		if err == nil {
			err = os.WriteFile(path, text, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	a, b := made(t, 1), made(t, 2)
	write(Ring{a})
	box, err := Open(t.Context(), path, "test")
	if err != nil {
		t.Fatal(err)
	}
	ctx, secrets, key := context.Background(), schema.GroupResource{Resource: "secrets"}, []byte("/registry/secrets/n/s")
	encrypt := func() []byte {
		t.Helper()
		stored, err := box.Transformers().TransformerForResource(secrets).TransformToStorage(ctx, []byte("canary"), value.DefaultContext(key))
		if err != nil {
			t.Fatal(err)
		}
		return stored
	}
	old := encrypt()
	if KeyOf(old) != a.Name || strings.Contains(string(old), "canary") {
		t.Fatalf("encrypted as %q", old)
	}
	write(Ring{b, a})
	if err := box.Reload(); err != nil {
		t.Fatal(err)
	}
	if plain, err := box.Decrypt(ctx, secrets, key, old); err != nil || string(plain) != "canary" {
		t.Fatalf("the old key: %q %v", plain, err)
	}
	if KeyOf(encrypt()) != b.Name {
		t.Fatal("the new key is not used")
	}
	write(Ring{b})
	if err := box.Reload(); err != nil {
		t.Fatal(err)
	}
	if _, err := box.Decrypt(ctx, secrets, key, old); err == nil {
		t.Fatal("a key that was dropped still decrypts")
	}
	if plain, err := box.Decrypt(ctx, secrets, key, []byte(`{"plain":true}`)); err != nil || string(plain) != `{"plain":true}` {
		t.Fatalf("what is not encrypted: %q %v", plain, err)
	}
	if err := os.WriteFile(path, []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := box.Reload(); err == nil {
		t.Fatal("nonsense was loaded")
	}
	if KeyOf(encrypt()) != b.Name {
		t.Fatal("after nonsense the last good one is not in force")
	}
}

func TestFencingDoesNotDependOnAKMS(t *testing.T) {
	kms := "- resources: ['*.*']\n  providers: [{kms: {apiVersion: v2, name: k, endpoint: unix:///nowhere}}, {identity: {}}]\n"
	own := "- resources: [clusters.tripod.dev, datasets.tripod.dev]\n  providers: [{identity: {}}]\n"
	head := "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n"
	for text, refused := range map[string]bool{head + kms: true, head + own + kms: false} {
		path := filepath.Join(t.TempDir(), "encryption.yaml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := checkBelowAPI(path); (err != nil) != refused {
			t.Errorf("%v for\n%s", err, text)
		}
	}
}
