"""The terminal monitor: the events of a server, folded into a state and drawn as a screen.

feed (threads)  ->  observations  ->  state (pure)  ->  view (pure)  ->  screen
|                                ^
recording                       keys -> ui (pure)
"""
