"""The terminal monitor: the own events of a service, folded into a state and drawn as a screen.

feed (threads)  ->  observations  ->  state (pure)  ->  view (pure)  ->  screen
|                                ^
recording                       keys -> ui (pure)
"""
