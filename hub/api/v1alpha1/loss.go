package v1alpha1

// AcceptedBy is true when the loss is not more than what an approval accepts, which is
// nil where it accepts none. One that nothing bounds is accepted in that word only.
func (l *LossEstimate) AcceptedBy(accepted *AcceptedLoss) bool {
	if l == nil || !l.Possible {
		return true
	}
	return accepted != nil && accepted.Seconds >= l.Seconds && (l.Extent != LossUnknown || accepted.Extent == LossUnknown)
}
