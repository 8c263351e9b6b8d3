package encryption

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"

	"k8s.io/apimachinery/pkg/runtime/schema"
	apiserverv1 "k8s.io/apiserver/pkg/apis/apiserver/v1"
	"k8s.io/apiserver/pkg/server/options/encryptionconfig"
	"k8s.io/apiserver/pkg/storage/value"
	"sigs.k8s.io/yaml"
)

// BelowAPI are the resources that a member reads straight from its store, to know
// who may be primary. No service outside may be needed for that.
var BelowAPI = []schema.GroupResource{{Group: "tripod.dev", Resource: "clusters"}, {Group: "tripod.dev", Resource: "datasets"}}

// Box encrypts and decrypts by an EncryptionConfiguration file. It is safe for
// concurrent use.
type Box struct {
	path     string
	id       string
	current  *encryptionconfig.DynamicTransformers
	mu       sync.Mutex
	loaded   string          // hash of what is in force
	lifetime context.Context //nolint:containedctx // ends the plugins of a configuration, which outlive the call that loads it
}

// Open reads the file. Plugins that it names are spoken to until ctx ends. id tells
// API servers apart in upstream's metrics.
func Open(ctx context.Context, path, id string) (*Box, error) {
	if err := checkBelowAPI(path); err != nil {
		return nil, err
	}
	b := &Box{path: path, id: id, lifetime: ctx}
	if err := b.Reload(); err != nil {
		return nil, err
	}
	return b, nil
}

// checkBelowAPI refuses a plugin for what is read below the API.
func checkBelowAPI(path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read the encryption configuration: %w: it is the same on every member", err)
	}
	var c apiserverv1.EncryptionConfiguration
	if err := yaml.Unmarshal(text, &c); err != nil {
		return fmt.Errorf("read the encryption configuration %s: %w", path, err)
	}
	for _, resource := range BelowAPI {
		for _, entry := range c.Resources {
			if !slices.ContainsFunc([]string{resource.String(), "*." + resource.Group, everything}, func(s string) bool { return slices.Contains(entry.Resources, s) }) {
				continue
			}
			if slices.ContainsFunc(entry.Providers, func(p apiserverv1.ProviderConfiguration) bool { return p.KMS != nil }) {
				return fmt.Errorf("the encryption configuration %s gives %s to a KMS: members read it to fence primaries, also when the KMS does not answer; list it first with a local key or identity", path, resource)
			}
			break // the first entry that matches counts
		}
	}
	return nil
}

// Reload reads the file again. When it returns without an error what the file says
// is in force; else what was in force still is.
func (b *Box) Reload() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	ctx, stop := context.WithCancel(b.lifetime)
	loaded, err := encryptionconfig.LoadEncryptionConfig(ctx, b.path, true, b.id)
	if err == nil && len(loaded.HealthChecks) != 1 {
		err = errors.New("it has no health check")
	}
	if err != nil {
		stop()
		return fmt.Errorf("load the encryption configuration %s: %w", b.path, err)
	}
	if loaded.EncryptionFileContentHash == b.loaded {
		stop()
		return nil
	}
	b.loaded = loaded.EncryptionFileContentHash
	if b.current == nil {
		b.current = encryptionconfig.NewDynamicTransformers(loaded.Transformers, loaded.HealthChecks[0], stop, loaded.KMSCloseGracePeriod)
		return nil
	}
	b.current.Set(loaded.Transformers, stop, loaded.HealthChecks[0], loaded.KMSCloseGracePeriod)
	return nil
}

// Healthy is nil while every KMS that the configuration names answers, which may be
// asked every 20 seconds only; without one always.
func (b *Box) Healthy(ctx context.Context) error {
	err := b.current.Check(request(ctx))
	if err == nil {
		return nil
	}
	return fmt.Errorf("the KMS %s does not answer as it should: see that the plugin runs on this machine; objects that were not read since this member started cannot be read, and after three minutes nothing can be written: %w",
		strings.Join(b.plugins(), ", "), err)
}

// request carries a context to upstream's check.
func request(ctx context.Context) *http.Request { return (&http.Request{}).WithContext(ctx) }

// plugins are the KMS of the configuration, by name and address.
func (b *Box) plugins() (list []string) {
	text, err := os.ReadFile(b.path)
	var c apiserverv1.EncryptionConfiguration
	if err != nil || yaml.Unmarshal(text, &c) != nil {
		return []string{"in " + b.path}
	}
	for _, entry := range c.Resources {
		for _, p := range entry.Providers {
			if p.KMS != nil {
				list = append(list, p.KMS.Name+" at "+p.KMS.Endpoint)
			}
		}
	}
	return list
}

// Transformers are for the API server; they follow Reload.
func (b *Box) Transformers() *encryptionconfig.DynamicTransformers { return b.current }

// Decrypt gives the plain text of a stored value of a resource.
func (b *Box) Decrypt(ctx context.Context, resource schema.GroupResource, key, stored []byte) ([]byte, error) {
	plain, _, err := b.current.TransformerForResource(resource).TransformFromStorage(ctx, stored, value.DefaultContext(key))
	if err != nil {
		return nil, fmt.Errorf("decrypt %s with the keys in %s: %w", key, b.path, err)
	}
	return plain, nil
}
