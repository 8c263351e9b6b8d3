package reporter

import (
	"slices"

	corev1 "k8s.io/api/core/v1"

	agentv1 "tripod.dev/tripod/proto/agent/v1"
)

// maxWanted bounds what is told of pods that wait in vain.
const maxWanted = 32

// wants is what one pod waits for in vain.
type wants struct {
	images []string
	room   bool
}

func (w wants) nothing() bool { return len(w.images) == 0 && !w.room }

// wantsOf reads it from the kubelet's and the scheduler's words.
func wantsOf(p *corev1.Pod) wants {
	var w wants
	for _, s := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses) {
		if s.State.Waiting == nil {
			continue
		}
		switch s.State.Waiting.Reason {
		case "ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull":
			w.images = append(w.images, imageOf(p, s.Name))
		}
	}
	for _, c := range p.Status.Conditions {
		w.room = w.room || c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse && c.Reason == corev1.PodReasonUnschedulable
	}
	return w
}

// imageOf is the image as the template names it: the status may say it otherwise.
func imageOf(p *corev1.Pod, container string) string {
	for _, c := range slices.Concat(p.Spec.InitContainers, p.Spec.Containers) {
		if c.Name == container {
			return c.Image
		}
	}
	return ""
}

// wantedLocked adds what pods wait for, and the storage classes.
func (f *factsheet) wantedLocked(facts *agentv1.ClusterFacts) {
	for key := range f.classes {
		facts.StorageClasses = append(facts.StorageClasses, key.Name)
	}
	for key, w := range f.wants {
		facts.MissingImages = append(facts.MissingImages, w.images...)
		if w.room {
			facts.Crowded = append(facts.Crowded, key.Namespace)
		}
	}
	facts.StorageClasses, facts.MissingImages, facts.Crowded = once(facts.StorageClasses), once(facts.MissingImages), once(facts.Crowded)
}

// servesClassesLocked is true where storage classes will be listed.
func (f *factsheet) servesClassesLocked() bool {
	return slices.ContainsFunc(f.resources, func(r *agentv1.SyncedResource) bool {
		return r.GetGroup() == classes.Group && r.GetResource() == classes.Resource
	})
}

func once(names []string) []string {
	slices.Sort(names)
	names = slices.Compact(names)
	return names[:min(len(names), maxWanted)]
}
