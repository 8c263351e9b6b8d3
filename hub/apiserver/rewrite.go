package apiserver

import (
	"context"
	"errors"
	"fmt"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
)

// rewritePage is how many objects are read at a time.
const rewritePage = 250

// RewriteAll writes every object again without a change. The server skips those
// that are stored as it would store them now; the others, encrypted with an older
// key or not at all, are stored anew. Objects that change or go meanwhile have been
// written by somebody else. Kinds that cannot be written are left alone.
func (s *Server) RewriteAll(ctx context.Context) error {
	config := s.Loopback()
	config.QPS = -1
	found, err := discovery.NewDiscoveryClientForConfig(config)
	if err != nil {
		return fmt.Errorf("apiserver: make a discovery client: %w", err)
	}
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("apiserver: make a client: %w", err)
	}
	lists, err := found.ServerPreferredResources()
	if err != nil {
		return fmt.Errorf("apiserver: list the kinds: %w", err)
	}
	var errs []error
	for _, list := range lists {
		version, err := schema.ParseGroupVersion(list.GroupVersion)
		if err != nil {
			return fmt.Errorf("apiserver: list the kinds: %w", err)
		}
		for _, kind := range list.APIResources {
			if slices.Contains(kind.Verbs, "list") && slices.Contains(kind.Verbs, "update") {
				errs = append(errs, rewriteKind(ctx, client.Resource(version.WithResource(kind.Name))))
			}
		}
	}
	return errors.Join(errs...)
}

func rewriteKind(ctx context.Context, kind dynamic.NamespaceableResourceInterface) error {
	options := metav1.ListOptions{Limit: rewritePage}
	for {
		page, err := kind.List(ctx, options)
		if apierrors.IsResourceExpired(err) && options.Continue != "" {
			options.Continue = "" // compacted meanwhile: those done before are skipped
			continue
		}
		if err != nil {
			return fmt.Errorf("apiserver: list to write again: %w", err)
		}
		for i := range page.Items {
			object := &page.Items[i]
			var to dynamic.ResourceInterface = kind
			if object.GetNamespace() != "" {
				to = kind.Namespace(object.GetNamespace())
			}
			_, err := to.Update(ctx, object, metav1.UpdateOptions{})
			if err != nil && !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) {
				return fmt.Errorf("apiserver: write %s %s/%s again: %w", object.GetKind(), object.GetNamespace(), object.GetName(), err)
			}
		}
		if options.Continue = page.GetContinue(); options.Continue == "" {
			return nil
		}
	}
}
