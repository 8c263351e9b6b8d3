package sim

import (
	"tripod.dev/tripod/hub/api/v1alpha1"
)
func (o Options) lanes() int { return 1 }
func (w *world) needs(l *lane) []v1alpha1.ApplicationReference {return nil}
func (w *world) seedPlan() *v1alpha1.RecoveryPlan {return nil}
