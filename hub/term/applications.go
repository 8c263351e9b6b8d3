package term

import (
	"context"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

// ApplicationState is an application with what its spec names, as applied here.
type ApplicationState struct {
	Application *v1alpha1.Application
	Datasets    []*v1alpha1.Dataset
	Services    []*v1alpha1.GlobalService
	// Serials are the revisions at which the Clusters were created: no two that
	// ever were in the hub have the same, and every member gives the same.
	Serials map[string]uint64
}

// Application returns the state of one application, or nil if there is none.
// Objects may be of different revisions, each at least as new as the newest that
// was applied here when the call began; objects and maps are shared.
func (c *Committed) Application(ctx context.Context, namespace, name string) (*ApplicationState, error) {
	app, _, err := c.applications.find(ctx, namespace+"/"+name)
	if app == nil || err != nil {
		return nil, err
	}
	state := &ApplicationState{Application: app, Serials: map[string]uint64{}}
	for _, dataset := range app.Spec.Datasets {
		d, _, err := c.datasets.find(ctx, namespace+"/"+dataset)
		if err != nil {
			return nil, err
		}
		if d != nil {
			state.Datasets = append(state.Datasets, d)
			if err := c.number(ctx, state.Serials, d.Status.Primary); err != nil {
				return nil, err
			}
		}
	}
	for _, service := range app.Spec.Services {
		s, _, err := c.services.find(ctx, namespace+"/"+service)
		if err != nil {
			return nil, err
		}
		if s != nil {
			state.Services = append(state.Services, s)
			if err := c.number(ctx, state.Serials, s.Status.Active...); err != nil {
				return nil, err
			}
		}
	}
	return state, nil
}

func (c *Committed) number(ctx context.Context, serials map[string]uint64, clusters ...string) error {
	for _, name := range clusters {
		cluster, created, err := c.clusters.find(ctx, name)
		if err != nil {
			return err
		}
		if cluster != nil {
			serials[name] = uint64(created)
		}
	}
	return nil
}

// find returns the object under key, behind the prefix, and the revision that
// created it; nil if there is none.
func (s *shelf[T, P]) find(ctx context.Context, key string) (P, int64, error) {
	if _, _, _, err := s.read(ctx); err != nil {
		return nil, 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	found := s.held[s.prefix+key]
	return found.object, found.created, nil
}
