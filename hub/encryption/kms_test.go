package encryption

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/storage/value"
	kms "k8s.io/kms/pkg/service"
)

// vault is a KMS: keys by name, of which the last made is the present one.
type vault struct {
	mu      sync.Mutex
	keys    map[string]cipher.AEAD
	present string
}

func (v *vault) rotate(t *testing.T, name string) {
	t.Helper()
	key := make([]byte, 32)
	if _, err := rand.Read(key); err != nil {
		t.Fatal(err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	sealer, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		t.Fatal(err)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.keys == nil {
		v.keys = map[string]cipher.AEAD{}
	}
	v.keys[name], v.present = sealer, name
}

// Status implements kms.Service.
func (v *vault) Status(context.Context) (*kms.StatusResponse, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return &kms.StatusResponse{Version: "v2", Healthz: "ok", KeyID: v.present}, nil
}

// Encrypt implements kms.Service.
func (v *vault) Encrypt(_ context.Context, _ string, data []byte) (*kms.EncryptResponse, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return &kms.EncryptResponse{Ciphertext: v.keys[v.present].Seal(nil, nil, data, nil), KeyID: v.present}, nil
}

// Decrypt implements kms.Service.
func (v *vault) Decrypt(_ context.Context, _ string, request *kms.DecryptRequest) ([]byte, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	key := v.keys[request.KeyID]
	if key == nil {
		return nil, fmt.Errorf("no key %q", request.KeyID)
	}
	return key.Open(nil, nil, request.Ciphertext, nil)
}

// serve runs the plugin on its socket until stop.
func (v *vault) serve(t *testing.T, socket string) (stop func()) {
	t.Helper()
	_ = os.Remove(socket)
	plugin := kms.NewGRPCService(socket, 5*time.Second, v)
	ended := make(chan error, 1)
	go func() { ended <- plugin.ListenAndServe() }()
	await(t, "the plugin listens", func() error {
		_, err := os.Stat(socket)
		return err
	})
	return sync.OnceFunc(func() {
		plugin.Close()
		<-ended
	})
}

// await tries until it goes well.
func await(t *testing.T, what string, try func() error) {
	t.Helper()
	deadline := time.After(time.Minute)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := try()
		if err == nil {
			return
		}
		select {
		case <-deadline:
			t.Fatalf("%s: still %v", what, err)
		case <-tick.C:
		}
	}
}

var (
	kmsSecrets  = schema.GroupResource{Resource: "secrets"}
	kmsClusters = schema.GroupResource{Group: "tripod.dev", Resource: "clusters"}
)

// opened is a member that starts: it has no data key in memory.
func opened(t *testing.T, path string) *Box {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	box, err := Open(ctx, path, "test")
	if err != nil {
		t.Fatal(err)
	}
	return box
}

func sealed(t *testing.T, box *Box) (stored []byte) {
	t.Helper()
	await(t, "encrypt by the KMS", func() (err error) {
		stored, err = box.Transformers().TransformerForResource(kmsSecrets).TransformToStorage(t.Context(), []byte("canary"), value.DefaultContext("/registry/secrets/a/b"))
		return err
	})
	if !bytes.HasPrefix(stored, []byte("k8s:enc:kms:v2:vault:")) || bytes.Contains(stored, []byte("canary")) {
		t.Fatalf("stored as %q", stored)
	}
	return stored
}

// TestObjectsAreEncryptedByAKMS: with a real plugin of KMS v2 on its socket, which goes
// away, comes back and changes its key.
func TestObjectsAreEncryptedByAKMS(t *testing.T) {
	dir := t.TempDir()
	socket, path := filepath.Join(dir, "kms.sock"), filepath.Join(dir, "encryption.yaml")
	if err := os.WriteFile(path, []byte(`apiVersion: apiserver.config.k8s.io/v1
kind: EncryptionConfiguration
resources:
- {resources: [clusters.tripod.dev, datasets.tripod.dev], providers: [{identity: {}}]}
- {resources: ['*.*'], providers: [{kms: {apiVersion: v2, name: vault, endpoint: 'unix://`+socket+`', timeout: 2s}}, {identity: {}}]}
`), 0o600); err != nil {
		t.Fatal(err)
	}
	v := &vault{}
	v.rotate(t, "key-of-monday")
	stop := v.serve(t, socket)
	defer func() { stop() }()
	running := opened(t, path)
	first := sealed(t, running)
	if !bytes.Contains(first, []byte("key-of-monday")) {
		t.Errorf("the stored value does not name its key: %q", first)
	}
	read := func(box *Box, stored []byte) error {
		plain, err := box.Decrypt(t.Context(), kmsSecrets, []byte("/registry/secrets/a/b"), stored)
		if err == nil && string(plain) != "canary" {
			err = fmt.Errorf("read %q", plain)
		}
		return err
	}
	await(t, "a member that starts reads it", func() error { return read(opened(t, path), first) })
	if err := running.Healthy(t.Context()); err != nil {
		t.Errorf("a plugin that answers: %v", err)
	}

	stop()
	if err := read(running, first); err != nil {
		t.Errorf("a member that runs has the data key in memory: %v", err)
	}
	started := opened(t, path)
	if err := read(started, first); err == nil || !strings.Contains(err.Error(), "/registry/secrets/a/b") || !strings.Contains(err.Error(), path) {
		t.Errorf("without the plugin: %v, want object and configuration", err)
	}
	for range 2 { // the second one is upstream's memory of the first
		if err := started.Healthy(t.Context()); err == nil || !strings.Contains(err.Error(), "vault at unix://"+socket) {
			t.Errorf("without the plugin: healthy is %v, want its name", err)
		}
	}
	if err := started.Transformers().Check(request(t.Context())); err == nil {
		t.Error("/readyz does not see that the plugin is gone")
	}
	if plain, err := started.Decrypt(t.Context(), kmsClusters, []byte("/registry/tripod.dev/clusters/north"), []byte("plain")); err != nil || string(plain) != "plain" {
		t.Errorf("what members fence by: %q %v", plain, err)
	}

	// It comes back with another key; the old one stays in it.
	v.rotate(t, "key-of-tuesday")
	stop = v.serve(t, socket)
	await(t, "the plugin is seen again", func() error { return started.Healthy(t.Context()) })
	var second []byte
	await(t, "the new key is used, without a restart", func() error {
		if second = sealed(t, started); !bytes.Contains(second, []byte("key-of-tuesday")) {
			return errors.New("still the old key")
		}
		return nil
	})
	for stored, wantStale := range map[string]bool{string(first): true, string(second): false} {
		_, stale, err := started.Transformers().TransformerForResource(kmsSecrets).TransformFromStorage(t.Context(), []byte(stored), value.DefaultContext("/registry/secrets/a/b"))
		if err != nil || stale != wantStale {
			t.Errorf("stale is %t, want %t, which has it written again: %v", stale, wantStale, err)
		}
	}
}
