"""One model call: what is asked and answered, and the policies between a stage and a provider.

The order of the policies, outermost first, and why each stands where it stands:

==============  ============================================================================================
structured      a schema's repair is a new call, with attempts of its own, so it is outside all that counts them
deadline        the item's end: no attempt and no wait of this call outlives it
retry           outside every limit, so that each attempt is admitted, limited and counted, and a wait holds none
slot            the stage's own; held by the visit around the whole call, given back by retry while it sleeps
budget          inside all that makes several attempts of one, so that each is covered, at the prices of the model
                that it asks; inside the breaker, so that nothing is put aside for an endpoint that is down; outside
                the limits, so that nobody who waits for money holds a unit that others need
limit           the model's `max_concurrency`, shared by all stages; after the slot, so that nobody holds it idle
account         asks the visit before each attempt and charges it after, whatever its end; so it sees every attempt
timeout         innermost, so that our own queues are not mistaken for a slow model
(provider)      asks once; no retries, no redirects and no waiting of its own
==============  ============================================================================================

The others of the design join this row with what they need: events and cache outside the deadline, fallback
around retry, hedge and breaker inside it, the quota between slot and timeout.
"""
