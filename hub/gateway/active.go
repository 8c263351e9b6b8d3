package gateway

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

// Standing is what committed state says of one application, at one revision.
// Objects are shared and must not be changed.
type Standing struct {
	Application *v1alpha1.Application
	// Datasets and Services are those of its spec that exist, in the spec's order.
	Datasets []*v1alpha1.Dataset
	Services []*v1alpha1.GlobalService
	// Serials number Cluster objects, so that no two that ever were in this hub,
	// of one name or of two, have the same. All members give the same numbers.
	Serials map[string]uint64
}

// Applications knows where applications are. Implementations are safe for
// concurrent use.
type Applications interface {
	// Standing returns committed state that is not older than the call when
	// strict, and not older than a bound of the implementation otherwise. The
	// error wraps ErrNoSuchApplication when there is none; any other means that
	// this member cannot know now.
	Standing(ctx context.Context, namespace, name string, strict bool) (Standing, error)
}

// ErrNoSuchApplication is Applications' answer for a name that is not taken.
var ErrNoSuchApplication = errors.New("there is no such application")

// location is where the requests to an application go.
type location struct {
	cluster string
	// serial numbers the Cluster.
	serial uint64
	// unsettled says why writes are refused for now, unwritable why they always
	// are. Empty when they are not.
	unsettled, unwritable string
}

// locate finds the active cluster of an application. With datasets it is the
// primary of the first one, also while that is only coming: what is read is
// then the side that will go on. Writes wait until the roles of all datasets
// rest in that one cluster. Without datasets it is where its services lead.
func locate(s Standing) (location, error) {
	at, err := locateByDatasets(s)
	if len(s.Application.Spec.Datasets) == 0 {
		at, err = locateByServices(s)
	}
	if err != nil {
		return location{}, err
	}
	serial, known := s.Serials[at.cluster]
	if !known {
		return location{}, fmt.Errorf("it is active in cluster %q, which is not in this fleet: apply its Cluster again", at.cluster)
	}
	at.serial = serial
	return at, nil
}

func locateByDatasets(s Standing) (location, error) {
	var at location
	var reasons []string
	for i, name := range s.Application.Spec.Datasets {
		found := slices.IndexFunc(s.Datasets, func(d *v1alpha1.Dataset) bool { return d.Name == name })
		if found < 0 {
			return location{}, fmt.Errorf("its dataset %q does not exist: create it or remove it from spec.datasets", name)
		}
		status := s.Datasets[found].Status
		if status.Primary == "" {
			return location{}, fmt.Errorf("its dataset %q has no primary yet", name)
		}
		if i == 0 {
			at.cluster = status.Primary
		}
		switch {
		case status.Phase == v1alpha1.DatasetClosing:
			reasons = append(reasons, fmt.Sprintf("dataset %s is being closed in cluster %s", name, status.Primary))
		case status.Phase == v1alpha1.DatasetFencing:
			reasons = append(reasons, fmt.Sprintf("dataset %s is being fenced in cluster %s and is to move to %s", name, status.PreviousPrimary, status.Primary))
		case status.Phase == v1alpha1.DatasetPromoting:
			reasons = append(reasons, fmt.Sprintf("dataset %s is being promoted in cluster %s", name, status.Primary))
		case status.Primary != at.cluster:
			reasons = append(reasons, fmt.Sprintf("dataset %s is still in cluster %s", name, status.Primary))
		}
	}
	at.unsettled = strings.Join(reasons, "; ")
	return at, nil
}

func locateByServices(s Standing) (location, error) {
	var active []string
	for _, service := range s.Services {
		for _, cluster := range service.Status.Active {
			if !slices.Contains(active, cluster) {
				active = append(active, cluster)
			}
		}
	}
	if len(active) == 0 {
		return location{}, errors.New("it has no dataset, and none of its services leads anywhere yet: its place is not decided")
	}
	at := location{cluster: active[0]}
	if len(active) > 1 {
		at.unwritable = fmt.Sprintf("it is active in several clusters at once (%s): write its templates to the hub, or to one of them at /clusters/NAME", strings.Join(active, ", "))
	}
	return at, nil
}
