"""One model call: what is asked and answered, and the policies between a stage and a provider.

The order of the policies, outermost first, and why each stands where it stands:

==============  ============================================================================================
structured      a schema's repair is a new call, with attempts of its own, so it is outside all that counts them
journal         outermost of one call: what an earlier run was answered needs nothing below, not even to be told of;
                what it keeps is the end of the call, whatever that took
observe         outermost of what happens in this run, so that it tells what everything below came to
cache           an answer that is there needs nothing else: no time, no attempt, no money; and what is kept is the
                answer to the call, whoever gave it at which attempt
deadline        the item's end: no attempt and no wait of this call outlives it
fallback        outside one model's retries, so that another model is asked only when those have ended; each model
                has everything below for itself, with its own attempts, limits and prices
detector        sees how calls end, not attempts; inside fallback, so that a model that is wrong as a whole stops no
                run while another one answers
retry           outside every limit, so that each attempt is admitted, limited and counted, and a wait holds none
hedge           inside retry: two legs are one try, and what fails both is retried once; outside the rest, because
                each leg is an attempt that is guarded, paid and limited like another
breaker         asked before anything is taken, so that nobody holds money or room while an endpoint is down; told of
                each attempt's end, of both legs
slot            the stage's own; held by the visit around the whole call, given back by retry, breaker and budget while
                they wait
budget          inside all that makes several attempts of one, so that each is covered, at the prices of the model
                that it asks; inside the breaker, so that nothing is put aside for an endpoint that is down; outside
                the limits, so that nobody who waits for money holds a unit that others need
limit           how many attempts of a model are in flight, shared by all stages; after the slot, so that nobody holds
                it idle
quota           when the next one may be sent; after the limit, because what has its turn is sent at once
connection      a socket of this process; last of what is waited for, and there is room for all but the largest runs
account         asks the visit before each attempt and charges it after, whatever its end; so it sees every attempt
sending         marks when an attempt goes out, for those who time it, and tells how it ended
timeout         innermost, so that our own queues are not mistaken for a slow model
(provider)      asks once; no retries, no redirects and no waiting of its own
==============  ============================================================================================

A policy is a frozen value. What it counts lives in an object of the run that it holds, and that `Limits` keep, so that
all stages, and all runs that are given the same limits, share it: circuits and retry budgets by endpoint, quotas and
gates by account and model, latencies by model and stage, the cache by file.
"""
